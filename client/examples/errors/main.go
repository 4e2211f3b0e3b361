// Command errors branches on the codes of errors, which are stable, and never on
// their words, which are for people.
//
// Output:
//
//	there is none yet: it is made
//	there is one already: it is taken
//	refused: invalid_name /name
//	somebody changed it: it is read again, and the change is made
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

const name = "example-errors"

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: errors IMAGE")
	}
	c := must(client.FromEnv())
	ctx := context.Background()
	if _, err := c.VMs.Get(ctx, name); client.CodeOf(err) == "not_found" {
		fmt.Println("there is none yet: it is made")
	}
	want := api.VMCreate{Name: name, CPUs: 1, MemoryBytes: 64 << 20, Image: os.Args[1]}
	finish(ctx, c)(c.VMs.Create(ctx, want))
	if _, err := c.VMs.Create(ctx, want); client.CodeOf(err) == "already_exists" {
		fmt.Println("there is one already: it is taken")
	}

	// What was refused, and where, is in the error of the API.
	want.Name = "../etc/passwd"
	_, err := c.VMs.Create(ctx, want)
	if refused, ok := errors.AsType[*api.Error](err); ok {
		fmt.Println("refused:", refused.Code, refused.Errors[0].Field)
	}

	label(ctx, c)
	finish(ctx, c)(c.VMs.Delete(ctx, name))
}

// label makes a change that names the revision it was decided on: it is refused when
// somebody was faster.
func label(ctx context.Context, c *client.Client) {
	vm := must(c.VMs.Get(ctx, name))
	must(c.VMs.Patch(ctx, name, vm.Revision, api.VMPatch{Labels: &map[string]string{"owner": "somebody-else"}}))

	mine := api.VMPatch{Labels: &map[string]string{"tier": "web"}}
	_, err := c.VMs.Patch(ctx, name, vm.Revision, mine)
	if client.CodeOf(err) == "revision_mismatch" {
		vm = must(c.VMs.Get(ctx, name))
		must(c.VMs.Patch(ctx, name, vm.Revision, mine))
		fmt.Println("somebody changed it: it is read again, and the change is made")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// finish waits for the change that a call began.
func finish(ctx context.Context, c *client.Client) func(client.Change, error) {
	return func(change client.Change, err error) {
		_, err = c.WaitChange(ctx, must(change, err), nil)
		if job, ok := errors.AsType[*client.JobError](err); ok {
			log.Fatal("the job did not succeed: ", job.Job.Error.Code)
		}
		must(0, err)
	}
}
