// Command events follows what happens, stops, and goes on after the last event it
// saw, as a program does that was restarted: what happened in between comes, once.
//
// Output:
//
//	image.created example-watched
//	restarted
//	image.updated example-watched
//	image.deleted example-watched
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

const name = "example-watched"

func main() {
	c, err := client.FromEnv()
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	image, err := c.Images.Create(ctx, api.ImageCreate{Name: name, Type: "disk"})
	if err != nil {
		log.Fatal(err)
	}

	// 0 is before the first event; client.FromNow leaves out what was before.
	last := follow(ctx, c, image.ID, 0, "image.created")

	fmt.Println("restarted")
	change, err := c.Images.Delete(ctx, name)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.WaitChange(ctx, change, nil); err != nil {
		log.Fatal(err)
	}
	follow(ctx, c, image.ID, last, "image.deleted")
}

// follow prints the events of one object until one of the kind comes, whose number
// it gives: a program that keeps that number resumes there. A connection that breaks
// is made again by itself.
func follow(ctx context.Context, c *client.Client, object string, after int64, until string) int64 {
	for event, err := range c.Events(ctx, after) {
		if err != nil {
			log.Fatal(err)
		}
		if event.Object.ID != object {
			continue
		}
		fmt.Println(event.Kind, event.Object.Name)
		if event.Kind == until {
			return event.Seq
		}
	}
	return after
}
