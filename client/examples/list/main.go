// Command list reads a list page by page, and again as one sequence.
//
// Output:
//
//	page 1: example-list-1 example-list-2
//	page 2: example-list-3
//	all: example-list-3 example-list-2 example-list-1
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

func main() {
	c, err := client.FromEnv()
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	names := []string{"example-list-1", "example-list-2", "example-list-3"}
	for _, name := range names {
		must(c.Images.Create(ctx, api.ImageCreate{Name: name, Type: "disk"}))
	}
	pages(ctx, c)

	// All goes through the pages by itself.
	fmt.Print("all:")
	o := client.ListOptions{Sort: "-name", Filter: map[string]string{"name": "example-list-*"}}
	for image, err := range c.Images.All(ctx, o) {
		fmt.Print(" ", must(image, err).Name)
	}
	fmt.Println()

	for _, name := range names {
		must(c.WaitChange(ctx, must(c.Images.Delete(ctx, name)), nil))
	}
}

// pages reads one page after the other: each says where the next one begins.
// Filters and sort stay the same.
func pages(ctx context.Context, c *client.Client) {
	o := client.ListOptions{Limit: 2, Sort: "name", Filter: map[string]string{"name": "example-list-*"}}
	for n := 1; n == 1 || o.Cursor != ""; n++ {
		page := must(c.Images.List(ctx, o))
		fmt.Printf("page %d:", n)
		for _, image := range page.Items {
			fmt.Print(" ", image.Name)
		}
		fmt.Println()
		o.Cursor = page.Next
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
