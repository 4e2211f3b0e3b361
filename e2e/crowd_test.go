package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// crowd is an instance with one node, if not told otherwise, and many tiny real guests.
func crowd(t *testing.T, n int, args ...string) *army {
	t.Helper()
	i := up(t, append([]string{"--accel", "tcg"}, args...)...)
	path := filepath.Join(t.TempDir(), "boot.raw")
	if err := os.WriteFile(path, bootable(1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	i.must("image", "import", "boot", "--disk", path)
	c, err := client.New(client.Config{Socket: i.state().Summary.Socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &army{i: i, c: c, n: n}
}

func (f *army) create(start bool) func(context.Context, string) (client.Change, error) {
	return func(ctx context.Context, name string) (client.Change, error) {
		return f.c.VMs.Create(ctx, api.VMCreate{Name: name, CPUs: 1, MemoryBytes: 16 << 20, Image: "boot", NICs: []api.VMNICCreate{{}}, Start: start})
	}
}

// An agent with as many guests as its host takes, twenty at most, dies: within five
// seconds of that all of them can be worked with again, each as the process that it was.
// What else this machine does is slow too: so there are several tries.
func TestCrowdOutlivesItsAgent(t *testing.T) {
	const most, times, within = 20, 5, 5 * time.Second
	f := crowd(t, 0)
	f.n = min(most, get[api.Node](f.i, "node", "show", "node-1").Status.Capacity.CPUs)
	f.phase("create", "running", f.create(true))
	was := f.pids()
	best := time.Duration(1<<63 - 1)
	for range times {
		began := clock.System{}.Boot()
		f.i.kill("node-1")
		f.everybodyAnswers()
		took := clock.System{}.Boot() - began
		t.Logf("%d guests answer %v after their agent was killed", f.n, took)
		if best = min(best, took); best <= within {
			break
		}
	}
	if best > within {
		t.Errorf("it takes %v until %d guests answer after their agent was killed, more than %v", best, f.n, within)
	}
	for name, pid := range f.pids() {
		if pid != was[name] {
			t.Errorf("VM %s was process %s and is %s", name, was[name], pid)
		}
	}
	f.phase("delete", "", f.c.VMs.Delete)
	f.i.must("image", "delete", "boot", "--wait")
	f.i.nothingLeft()
}

func (f *army) pids() map[string]string {
	f.i.t.Helper()
	out := map[string]string{}
	for n := range f.n {
		out[name(n)] = guestPID(f.i.t, get[api.VM](f.i, "vm", "show", name(n)))
	}
	return out
}

// everybodyAnswers asks the node about each guest until it has answered.
func (f *army) everybodyAnswers() {
	f.i.t.Helper()
	ctx, cancel := context.WithTimeout(f.i.t.Context(), f.i.patience)
	defer cancel()
	var all sync.WaitGroup
	for n := range f.n {
		all.Go(func() {
			for {
				_, err := f.c.VMs.Guest(ctx, name(n))
				if err == nil {
					return
				}
				if (clock.System{}).Sleep(ctx, 20*time.Millisecond) != nil {
					f.i.t.Errorf("VM %s does not answer: %v", name(n), err)
					return
				}
			}
		})
	}
	all.Wait()
}

// Two hundred times something happens to one of a few VMs: it is made, started, stopped
// without asking, deleted, or one of its processes dies, while the node's agent dies every
// now and then. Every job ends well, and in the end nothing is left.
func TestRandomLives(t *testing.T) {
	const rounds, hands, seed = 200, 4, 0x11fe
	f := crowd(t, 0)
	ctx, stop := context.WithCancel(t.Context())
	var all, killer sync.WaitGroup
	killer.Go(func() { f.killAgents(ctx) })
	defer killer.Wait()
	defer stop()
	done := make([]map[string]int, hands)
	for h := range hands {
		done[h] = map[string]int{}
		all.Go(func() {
			l := &life{army: f, name: fmt.Sprintf("life-%d", h), dice: rand.New(rand.NewPCG(seed, uint64(h))), done: done[h]}
			for range rounds / hands {
				if err := l.round(t.Context()); err != nil {
					t.Errorf("seed %#x, VM %s, after %v: %v", seed, l.name, l.done, err)
					return
				}
			}
			if err := l.job(l.c.VMs.Delete(t.Context(), l.name)); err != nil && client.CodeOf(err) != "not_found" {
				t.Errorf("delete %s: %v", l.name, err)
			}
		})
	}
	all.Wait()
	stop()
	killer.Wait()
	t.Logf("what happened, while the agent was killed %d times: %v", f.kills.Load(), done)
	if f.kills.Load() == 0 {
		t.Error("the agent was never killed")
	}
	f.jobsEndedWell()
	f.i.must("image", "delete", "boot", "--wait")
	f.i.nothingLeft()
}

// killAgents does so a few times: who dies more often is started ever more slowly.
func (f *army) killAgents(ctx context.Context) {
	for f.kills.Load() < 3 && (clock.System{}).Sleep(ctx, killEvery/2) == nil {
		pid := f.i.state().Children["node-1"].PID
		if pid > 1 && syscall.Kill(pid, syscall.SIGKILL) == nil {
			f.kills.Add(1)
		}
	}
}

// life is that of one VM, in which anything happens.
type life struct {
	*army
	name string
	dice *rand.Rand
	done map[string]int
}

func (l *life) round(ctx context.Context) error {
	v, err := l.c.VMs.Get(ctx, l.name)
	if client.CodeOf(err) == "not_found" {
		l.done["create"]++
		return l.job(l.create(l.dice.IntN(2) == 0)(ctx, l.name))
	}
	if err != nil {
		return err
	}
	switch l.dice.IntN(5) {
	case 0, 1:
		l.done["start"]++
		return l.job(l.c.VMs.Start(ctx, l.name))
	case 2:
		l.done["stop"]++
		now := 0
		return l.job(l.c.VMs.Stop(ctx, l.name, api.VMStop{GraceSeconds: &now}))
	case 3:
		l.done["end of a process"]++
		return l.end(v)
	default:
		l.done["delete"]++
		return l.job(l.c.VMs.Delete(ctx, l.name))
	}
}

// job waits for the end of what was asked for, if it is a job.
func (l *life) job(c client.Change, err error) error {
	if err != nil || c.Job == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(l.i.t.Context(), l.i.patience)
	defer cancel()
	_, err = l.c.WaitJob(ctx, c.Job.ID, nil)
	return err
}

// end kills the VM's hypervisor, its keeper or its network, if it has one. What is asked
// next may come before anybody has noticed.
func (l *life) end(v api.VM) error {
	if found := guestPIDs(v); len(found) > 1 {
		return fmt.Errorf("it has the processes %v", found)
	}
	var all []int
	for _, p := range hypertest.Processes(v.ID) {
		all = append(all, p.PID)
	}
	if len(all) == 0 {
		return nil
	}
	if err := syscall.Kill(all[l.dice.IntN(len(all))], syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
