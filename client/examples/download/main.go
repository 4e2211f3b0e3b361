// Command download reads a file of an image into a file of this machine. What breaks
// off goes on where it was, and what came is held against its SHA-256.
//
// Output:
//
//	example-copy has 4194304 bytes of a raw disk
//	here are the same
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

const name = "example-copy"

func main() {
	c, ctx := must(client.FromEnv()), context.Background()
	disk := bytes.Repeat([]byte("example "), 512<<10)
	must(c.Images.Create(ctx, api.ImageCreate{Name: name, Type: "disk"}))
	must(c.Images.Upload(ctx, name, "disk", bytes.NewReader(disk), int64(len(disk)), nil))

	dir := must(os.MkdirTemp("", "example"))
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "copy.raw")
	file := must(c.Images.DownloadFile(ctx, name, "disk", path, func(got int64) {
		log.Printf("%d %%", got*100/int64(len(disk)))
	}))
	fmt.Printf("%s has %d bytes of a %s disk\n", name, file.SizeBytes, file.Format)
	if bytes.Equal(must(os.ReadFile(path)), disk) {
		fmt.Println("here are the same")
	}
	must(c.WaitChange(ctx, must(c.Images.Delete(ctx, name)), nil))
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
