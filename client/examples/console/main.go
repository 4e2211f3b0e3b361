// Command console types a line into the serial console of a virtual machine and
// shows what comes back. The output is that of a simulated guest, which echoes; it
// ends when the guest powers off.
//
// Output:
//
//	guest: sim# poweroff
//	guest: sim#
//	the guest let go of its console
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

const name = "example-console"

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: console IMAGE")
	}
	c, err := client.FromEnv()
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	finish(ctx, c)(c.VMs.Create(ctx, api.VMCreate{
		Name: name, CPUs: 1, MemoryBytes: 64 << 20, Image: os.Args[1], Start: true,
	}))

	console, err := c.VMs.Console(ctx, name) // an io.ReadWriteCloser
	if err != nil {
		log.Fatal(err)
	}
	if _, err := io.WriteString(console, "\npoweroff\n"); err != nil {
		log.Fatal(err)
	}
	said, err := io.ReadAll(console)
	if err != nil && !errors.Is(err, io.EOF) {
		log.Fatal(err)
	}
	for line := range strings.Lines(strings.TrimSpace(string(said))) {
		fmt.Println("guest:", strings.TrimRight(line, "\r\n"))
	}
	fmt.Println("the guest let go of its console")

	finish(ctx, c)(c.VMs.Stop(ctx, name, api.VMStop{}))
	finish(ctx, c)(c.VMs.Delete(ctx, name))
}

// finish waits for the change that a call began.
func finish(ctx context.Context, c *client.Client) func(client.Change, error) {
	return func(change client.Change, err error) {
		if err == nil {
			_, err = c.WaitChange(ctx, change, nil)
		}
		if err != nil {
			log.Fatal(err)
		}
	}
}
