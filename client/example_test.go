package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

func Example() { //nolint:testableexamples // it needs a cluster
	c, err := client.New(client.Config{
		Addresses:   []string{"cloud.example:8443"},
		Fingerprint: os.Getenv("NOVACRON_FINGERPRINT"),
		Token:       os.Getenv("NOVACRON_TOKEN"),
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	change, err := c.VMs.Create(ctx, api.VMCreate{
		Name: "web", CPUs: 1, MemoryBytes: 512 << 20, Image: "debian", Start: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = c.WaitChange(ctx, change, func(j api.Job) { fmt.Println(j.Progress, "percent") })
	var failed *client.JobError
	switch {
	case errors.As(err, &failed):
		fmt.Println("the job failed:", failed.Job.Error)
	case err != nil:
		log.Fatal(err)
	}
}

// A list walks through its pages by itself.
func ExampleVMs_All() { //nolint:testableexamples // it needs a cluster
	c, err := client.New(client.Config{Socket: "/run/novacron/server/api.sock"})
	if err != nil {
		log.Fatal(err)
	}
	for vm, err := range c.VMs.All(context.Background(), client.ListOptions{Sort: "name"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(vm.Name, vm.Status.State)
	}
}

// Errors carry a stable code to branch on.
func ExampleCodeOf() { //nolint:testableexamples // it needs a cluster
	c, err := client.New(client.Config{Socket: "/run/novacron/server/api.sock"})
	if err != nil {
		log.Fatal(err)
	}
	_, err = c.VMs.Get(context.Background(), "web")
	switch client.CodeOf(err) {
	case "":
		fmt.Println("there it is")
	case "not_found":
		fmt.Println("no such machine")
	default:
		log.Fatal(err)
	}
}

// Events resume by themselves after the last one seen.
func ExampleClient_Events() { //nolint:testableexamples // it needs a cluster
	c, err := client.New(client.Config{Socket: "/run/novacron/server/api.sock"})
	if err != nil {
		log.Fatal(err)
	}
	for event, err := range c.Events(context.Background(), client.FromNow) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(event.Seq, event.Kind, event.Object.Name)
	}
}

// Logs are a stream like any other.
func ExampleVMs_Logs() { //nolint:testableexamples // it needs a cluster
	c, err := client.New(client.Config{Socket: "/run/novacron/server/api.sock"})
	if err != nil {
		log.Fatal(err)
	}
	r, err := c.VMs.Logs(context.Background(), "web", false)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	_, _ = io.Copy(os.Stdout, r)
}
