// Command create makes a virtual machine, waits until it runs, and deletes it.
//
// Output:
//
//	vm.create of example-web: succeeded
//	example-web is running with 1 CPU and 64 MiB
//	vm.delete of example-web: succeeded
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: create IMAGE")
	}
	c, err := client.FromEnv()
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()

	// The answer to a change is the job that makes it.
	change, err := c.VMs.Create(ctx, api.VMCreate{
		Name: "example-web", CPUs: 1, MemoryBytes: 64 << 20, Image: os.Args[1], Start: true,
	})
	finish(ctx, c, change, err)

	vm, err := c.VMs.Get(ctx, "example-web")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s is %s with %d CPU and %d MiB\n", vm.Name, vm.Status.State, vm.Spec.CPUs, vm.Spec.MemoryBytes>>20)

	change, err = c.VMs.Delete(ctx, "example-web")
	finish(ctx, c, change, err)
}

// finish waits for a change. Its progress goes where logs go.
func finish(ctx context.Context, c *client.Client, change client.Change, err error) {
	if err != nil {
		log.Fatal(err)
	}
	job, err := c.WaitChange(ctx, change, func(j api.Job) { log.Printf("%s: %d %%", j.Type, j.Progress) })
	if err != nil {
		log.Fatal(err) // a *client.JobError when the job ended without success
	}
	fmt.Printf("%s of %s: %s\n", job.Type, job.Target.Name, job.State)
}
