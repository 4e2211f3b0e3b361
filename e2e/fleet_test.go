package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// fleet is how large the simulated data centre is; NOVACRON_E2E_FLEET=nodes,vms
// changes it ('make fleet' runs the large one).
func fleet(t *testing.T) (nodes, vms int) {
	t.Helper()
	nodes, vms = 40, 200
	if s := os.Getenv("NOVACRON_E2E_FLEET"); s != "" {
		if _, err := fmt.Sscanf(s, "%d,%d", &nodes, &vms); err != nil {
			t.Fatalf("NOVACRON_E2E_FLEET is nodes,vms: %v", err)
		}
	}
	return nodes, vms
}

// killEvery is how often the server dies; it is back within a second, with its
// own work.
const killEvery = 3 * time.Second

// A simulated data centre whose server is killed every few seconds, while every
// VM is created, started, stopped and deleted over the API: every job ends, no
// acknowledged change is lost, and nothing is left.
func TestFleetUnderFire(t *testing.T) {
	nodes, vms := fleet(t)
	i := up(t, "--sim", fmt.Sprint(nodes))
	i.importTiny()
	c, err := client.New(client.Config{Socket: i.state().Summary.Socket})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f := &army{i: i, c: c, n: vms}
	ctx, stop := context.WithCancel(t.Context())
	var killer sync.WaitGroup
	killer.Go(func() { f.killServers(ctx) })
	defer killer.Wait()
	defer stop()

	f.phase("create", "stopped", func(ctx context.Context, name string) (client.Change, error) {
		return c.VMs.Create(ctx, api.VMCreate{Name: name, CPUs: 1, MemoryBytes: 64 << 20, Image: "tiny", Disks: []api.VMDiskCreate{{SizeBytes: 16 << 20}}})
	})
	f.phase("start", "running", c.VMs.Start)
	f.phase("stop", "stopped", func(ctx context.Context, name string) (client.Change, error) {
		return c.VMs.Stop(ctx, name, api.VMStop{})
	})
	f.phase("delete", "", c.VMs.Delete)
	stop()
	killer.Wait()
	t.Logf("the server was killed %d times", f.kills.Load())
	if f.kills.Load() == 0 {
		t.Error("the server was never killed: this shows nothing")
	}
	f.jobsEndedWell()
	i.eventually("nothing left", func() (bool, string) {
		left := f.leftovers()
		return len(left) == 0, strings.Join(left[:min(len(left), 10)], "\n")
	})
	if out := i.must("audit", "verify"); !strings.Contains(out, "intact") {
		t.Errorf("audit: %s", out)
	}
	// no server that dies makes a node know more than the database
	if r := get[api.Recovery](i, "recovery", "show"); r.Held {
		t.Errorf("held: %+v", r)
	}
}

// army is many VMs that do the same.
type army struct {
	i     *instance
	c     *client.Client
	n     int
	kills atomic.Int64
}

func (f *army) killServers(ctx context.Context) {
	for (clock.System{}).Sleep(ctx, killEvery) == nil {
		pid := f.i.state().Children["server"].PID
		if pid > 1 && syscall.Kill(pid, syscall.SIGKILL) == nil {
			f.kills.Add(1)
		}
	}
}

func name(n int) string { return fmt.Sprintf("vm-%04d", n) }

// phase asks for one change of every VM, some at a time, and waits until every
// VM is in the state.
func (f *army) phase(what, state string, ask func(context.Context, string) (client.Change, error)) {
	f.i.t.Helper()
	ctx, cancel := context.WithTimeout(f.i.t.Context(), patience+time.Duration(f.n)*100*time.Millisecond)
	defer cancel()
	began := clock.System{}.Boot()
	work := make(chan string)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for vm := range work {
				if err := f.insist(ctx, vm, ask); err != nil {
					f.i.t.Errorf("%s %s: %v", what, vm, err)
				}
			}
		})
	}
	for n := range f.n {
		work <- name(n)
	}
	close(work)
	wg.Wait()
	asked := clock.System{}.Boot() - began
	f.await(ctx, state)
	took := clock.System{}.Boot() - began
	f.i.t.Logf("%s: %d VMs asked in %.1f s, done in %.1f s (%.0f/s)", what, f.n, asked.Seconds(), took.Seconds(), float64(f.n)/took.Seconds())
}

// insist repeats a request that a dying server left unanswered. What the first
// try did shows in the answer: the VM is busy with our own job, there, or gone.
func (f *army) insist(ctx context.Context, vm string, ask func(context.Context, string) (client.Change, error)) error {
	for {
		_, err := ask(ctx, vm)
		switch client.CodeOf(err) {
		case "vm_busy", "not_found", "already_exists":
			return nil
		}
		if err == nil {
			return nil
		}
		if e := (clock.System{}).Sleep(ctx, 100*time.Millisecond); e != nil {
			return fmt.Errorf("%w: last answer: %w", e, err)
		}
	}
}

// await waits until every VM rests in the state; the empty one means gone.
func (f *army) await(ctx context.Context, state string) {
	f.i.t.Helper()
	for {
		vms, err := client.Collect(f.c.VMs.All(ctx, client.ListOptions{Limit: 1000}))
		odd, example := 0, ""
		for _, v := range vms {
			if v.Status.State != state || v.Status.Job != "" {
				odd++
				example = fmt.Sprintf("%s is %s (%s), job %s", v.Name, v.Status.State, v.Status.Reason, v.Status.Job)
			}
		}
		if err == nil && odd == 0 && (len(vms) == f.n) == (state != "") {
			return
		}
		if (clock.System{}).Sleep(ctx, 200*time.Millisecond) != nil {
			f.i.t.Fatalf("of %d VMs %d are not %q: %s (%v)", len(vms), odd, state, example, err)
		}
	}
}

func (f *army) jobsEndedWell() {
	f.i.t.Helper()
	jobs, err := client.Collect(f.c.Jobs.All(f.i.t.Context(), client.ListOptions{Limit: 1000}))
	if err != nil {
		f.i.t.Fatal(err)
	}
	if len(jobs) < 4*f.n {
		f.i.t.Errorf("%d jobs, want at least %d", len(jobs), 4*f.n)
	}
	for _, j := range jobs {
		if j.State != "succeeded" {
			f.i.t.Errorf("job %s %s of %s ended as %s: %+v", j.ID, j.Type, j.Target.Name, j.State, j.Error)
		}
	}
}

// guests reads the journals of the simulated hosts: the last word on each VM counts.
func (f *army) guests() (there []string) {
	journals, _ := filepath.Glob(filepath.Join(f.i.data, "nodes", "sim", "*", "guests", "*.jsonl"))
	if len(journals) == 0 {
		return []string{"no host keeps a journal"}
	}
	for _, name := range journals {
		b, err := os.ReadFile(name)
		if err != nil {
			return []string{err.Error()}
		}
		last := map[string]bool{}
		for line := range strings.Lines(string(b)) {
			var of struct {
				VM   string
				Gone bool
			}
			if err := json.Unmarshal([]byte(line), &of); err != nil {
				return []string{name + ": " + err.Error()}
			}
			last[of.VM] = !of.Gone
		}
		for v, is := range last {
			if is {
				there = append(there, name+" "+v)
			}
		}
	}
	return there
}

// leftovers reads the simulated hosts' folders and the nodes' counters.
func (f *army) leftovers() (left []string) {
	left, _ = filepath.Glob(filepath.Join(f.i.data, "nodes", "sim", "*", "volumes", "*-*"))
	left = append(left, f.guests()...)
	nodes, err := client.Collect(f.c.Nodes.All(f.i.t.Context(), client.ListOptions{Limit: 1000}))
	if err != nil {
		return []string{err.Error()}
	}
	for _, n := range nodes {
		if n.Status.VMs != 0 || n.Status.Used != (api.Resources{}) {
			left = append(left, fmt.Sprintf("node %s has %d VMs and counts %+v", n.Name, n.Status.VMs, n.Status.Used))
		}
	}
	return left
}
