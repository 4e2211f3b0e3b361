// Command apply brings a virtual machine to what a document declares: it is made,
// changed where it differs, and left alone where it does not.
//
// Output:
//
//	dry run: example-db would be: create
//	example-db: create
//	example-db: none
//	example-db: change /labels/tier
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

const name = "example-db"

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: apply IMAGE")
	}
	c, err := client.FromEnv()
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()

	// What a document leaves out stays as it is.
	cpus, memory, power := 1, api.Bytes(64<<20), "off"
	doc := api.VMDocument{
		DocumentMeta: api.DocumentMeta{Kind: "vm", Name: name},
		Spec: api.VMDocumentSpec{
			CPUs: &cpus, MemoryBytes: &memory, Power: &power, Image: &os.Args[1],
		},
	}
	planned := must(c.Apply(ctx, client.ApplyOptions{DryRun: true}, doc))
	fmt.Printf("dry run: %s would be: %s\n", name, planned.Results[0].Action)

	apply(ctx, c, doc)
	apply(ctx, c, doc)
	doc.Labels = &map[string]string{"tier": "data"}
	apply(ctx, c, doc)

	must(c.WaitChange(ctx, must(c.VMs.Delete(ctx, name)), nil))
}

// apply applies one document until nothing differs: several changes of one object
// are made one after the other.
func apply(ctx context.Context, c *client.Client, doc api.VMDocument) {
	for more := true; more; {
		result := must(c.Apply(ctx, client.ApplyOptions{}, doc)).Results[0]
		if result.Error != nil {
			log.Fatal(result.Error)
		}
		fmt.Println(result.Name+":", strings.Join(append([]string{result.Action}, result.Fields...), " "))
		if result.Job != "" {
			must(c.WaitJob(ctx, result.Job, nil))
		}
		more = result.More
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
