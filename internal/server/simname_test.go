package server

import (
	"context"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/agent/daemon"
	"github.com/novacron/novacron/internal/store/storetest"
)

// Simulated nodes take the name they are given and their number, and are found
// again without it.
func TestSimulatedNodesAreNamed(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	var tokens []string
	for range 2 {
		k, status := call[api.NodeToken](r, "POST", "/api/v1/node-tokens", nil)
		if status != http.StatusCreated {
			t.Fatalf("no join token: %d", status)
		}
		tokens = append(tokens, k.Token)
	}
	for _, name := range []string{"edge", ""} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		done := make(chan error, 1)
		ready := make(chan struct{})
		go func() {
			done <- daemon.RunSim(ctx, daemon.Options{
				Name: name, DataDir: filepath.Join(r.dir, "sim"), Clock: r.clock, Version: "test", Log: slog.New(slog.DiscardHandler), Ready: func() { close(ready) },
			}, 2, tokens)
		}()
		select {
		case <-ready:
		case err := <-done:
			t.Fatalf("they did not come up as %q: %v", name, err)
		}
		l, _ := call[api.List[api.Node]](r, "GET", "/api/v1/nodes", nil)
		var names []string
		for _, n := range l.Items {
			names = append(names, n.Name)
		}
		if !slices.Equal(names, []string{"edge-1", "edge-2"}) {
			t.Errorf("started as %q: %v", name, names)
		}
		cancel()
		<-done
		tokens = nil
	}
}
