// Command upload sends a file of an image and tells how far it is. What breaks off
// goes on where it was, by itself or when the program is started again.
//
// Output:
//
//	sent 8388608 of 8388608 bytes
//	example-disk is ready: 2daeb1f36095b44b318410b3f4e8b5d989dcc7bb023d1426c492dab0a3053e74
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

const name = "example-disk"

func main() {
	c, err := client.FromEnv()
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if _, err := c.Images.Create(ctx, api.ImageCreate{Name: name, Type: "disk"}); err != nil {
		log.Fatal(err)
	}

	// Images.UploadFile takes a file of this machine; anything else that can be read
	// at any place will do.
	disk := make([]byte, 8<<20)
	var sent int64
	image, err := c.Images.Upload(ctx, name, "disk", bytes.NewReader(disk), int64(len(disk)), func(n int64) {
		sent = n
		log.Printf("%d %%", n*100/int64(len(disk)))
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("sent %d of %d bytes\n", sent, len(disk))
	fmt.Printf("%s is %s: %s\n", image.Name, image.Status.State, image.Status.Files[0].SHA256)

	change, err := c.Images.Delete(ctx, name)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.WaitChange(ctx, change, nil); err != nil {
		log.Fatal(err)
	}
}
