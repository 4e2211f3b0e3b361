package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/agent/seed"
)

// Several hands change one VM at once, and a second one: they start, stop, restart, pause,
// resume and suspend it, and change its CD, while the node's agent is killed a few times.
// One request at a time is taken, the others are refused by what they collide with; every
// job that is taken ends well, and in the end nothing is left.
func TestManyHandsAtOneVM(t *testing.T) {
	const vms, hands, rounds, start = 2, 4, 100, 0x4a9d
	f := crowd(t, 0)
	for _, name := range []string{"one", "two"} {
		disc, err := seed.Image([]seed.File{{Name: "which", Content: []byte(name)}})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), name+".iso")
		if err := os.WriteFile(file, disc, 0o600); err != nil {
			t.Fatal(err)
		}
		f.i.must("image", "import", name, "--iso", file)
	}
	ctx, stop := context.WithCancel(t.Context())
	var all, killer sync.WaitGroup
	killer.Go(func() { f.killAgents(ctx) })
	defer killer.Wait()
	defer stop()
	var mu sync.Mutex
	done := map[string]int{}
	for v := range vms {
		l := &life{army: f}
		if err := l.job(f.create(true)(ctx, name(v))); err != nil {
			t.Fatal(err)
		}
		for h := range hands {
			all.Go(func() {
				l := &life{army: f, name: name(v), dice: rand.New(rand.NewPCG(start, uint64(hands*v+h)))}
				for range rounds {
					what, err := l.hand(ctx)
					switch code := client.CodeOf(err); code {
					case "vm_busy", "invalid_state":
						what += " refused: " + code
					case "":
						if err != nil {
							t.Errorf("%s %s: %v", what, l.name, err)
						}
					default:
						t.Errorf("%s %s: %v", what, l.name, err)
					}
					mu.Lock()
					done[what]++
					mu.Unlock()
				}
			})
		}
	}
	all.Wait()
	stop()
	killer.Wait()
	t.Logf("what happened, while the agent was killed %d times: %v", f.kills.Load(), done)
	f.jobsEndedWell()
	for v := range vms {
		f.i.must("vm", "delete", name(v), "--wait", "--yes")
	}
	for _, image := range []string{"boot", "one", "two"} {
		f.i.must("image", "delete", image, "--wait")
	}
	f.i.nothingLeft()
}

// hand asks for one change and waits for its end.
func (l *life) hand(ctx context.Context) (string, error) {
	now := 0
	off := api.VMStop{GraceSeconds: &now}
	c := l.c.VMs
	asks := []struct {
		what string
		ask  func() (client.Change, error)
	}{
		{"start", func() (client.Change, error) { return c.Start(ctx, l.name) }},
		{"start", func() (client.Change, error) { return c.Start(ctx, l.name) }},
		{"stop", func() (client.Change, error) { return c.Stop(ctx, l.name, off) }},
		{"restart", func() (client.Change, error) { return c.Restart(ctx, l.name, off) }},
		{"pause", func() (client.Change, error) { return c.Pause(ctx, l.name) }},
		{"resume", func() (client.Change, error) { return c.Resume(ctx, l.name) }},
		{"resume", func() (client.Change, error) { return c.Resume(ctx, l.name) }},
		{"suspend", func() (client.Change, error) { return c.Suspend(ctx, l.name) }},
		{"CD one", func() (client.Change, error) { return c.ReplaceCD(ctx, l.name, "one", false) }},
		{"CD two", func() (client.Change, error) { return c.ReplaceCD(ctx, l.name, "two", true) }},
		{"eject", func() (client.Change, error) { return c.EjectCD(ctx, l.name, false) }},
	}
	a := asks[l.dice.IntN(len(asks))]
	if err := l.job(a.ask()); err != nil {
		return a.what, fmt.Errorf("%s: %w", a.what, err)
	}
	return a.what, nil
}
