package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/sim"
	volumesim "github.com/novacron/novacron/internal/driver/volume/sim"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// booting is a host with several VMs whose clock only the test moves.
type booting struct {
	t       *testing.T
	dir     string
	host    *sim.Host
	cluster id.ID
	boots   int
	epoch   gen.NodeEpoch
	agent   *Agent
	vms     map[string]id.ID
	disks   map[id.ID]id.ID
}

func newBooting(t *testing.T, names ...string) *booting {
	t.Helper()
	h, err := sim.NewHost(sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := &booting{t: t, dir: t.TempDir(), host: h, cluster: id.New(), vms: map[string]id.ID{}, disks: map[id.ID]id.ID{}}
	t.Cleanup(func() {
		_ = b.agent.Close()
		h.Close()
	})
	b.start()
	for _, n := range names {
		v := id.New()
		b.vms[n], b.disks[v] = v, id.New()
		if err := b.send(v, 1, 1, &nodelink.CreateVolumes{Volumes: []nodelink.VolumeSpec{{ID: b.disks[v], SizeBytes: unit.MiB}}}); err != nil {
			t.Fatal(err)
		}
		if err := b.send(v, 2, 1, b.machine(v)); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b *booting) machine(v id.ID) *nodelink.Launch {
	return &nodelink.Launch{Machine: nodelink.Machine{CPUs: 1, MemoryBytes: 64 * unit.MiB, Volumes: []id.ID{b.disks[v]}}}
}

func (b *booting) start() {
	b.t.Helper()
	b.epoch++
	vols, err := volumesim.Open(filepath.Join(b.dir, "volumes"), unit.TiB)
	if err != nil {
		b.t.Fatal(err)
	}
	b.agent, err = New(Config{
		Node: id.New(), Cluster: b.cluster, Epoch: b.epoch, DataDir: b.dir, Boot: "boot " + string(rune('a'+b.boots)),
		NewHypervisor: func(s hypervisor.Sink) (hypervisor.Driver, error) { return sim.New(b.host, s), nil },
		Volumes:       vols, Images: cacheOf(b.t, b.dir), Clock: clock.System{}, Log: slog.New(slog.DiscardHandler), Volatile: true,
		Inventory: func(context.Context) (nodelink.Inventory, error) { return nodelink.Inventory{}, nil },
	})
	if err == nil {
		err = b.agent.Start(b.t.Context())
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// reboot cuts the power and starts the host again.
func (b *booting) reboot() {
	b.t.Helper()
	_ = b.agent.Close()
	b.host.PowerLoss()
	b.boots++
	b.start()
}

func (b *booting) send(v id.ID, seq int64, epoch gen.OwnerEpoch, c nodelink.Fenced) error {
	b.t.Helper()
	*c.Head() = nodelink.Header{
		Cluster: b.cluster, NodeEpoch: b.epoch, VM: v, OwnerEpoch: epoch, Operation: id.New(), OpSeq: seq, Attempt: 1, BudgetMS: 10_000, Step: "x",
	}
	body, err := json.Marshal(c)
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = b.agent.Handle(b.t.Context(), nil, c.Method(), body)
	return err
}

func (b *booting) tell(p nodelink.HostPlan) error {
	b.t.Helper()
	body, err := json.Marshal(p)
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = b.agent.Handle(b.t.Context(), nil, p.Method(), body)
	return err
}

// up names the VMs that execute.
func (b *booting) up() string {
	var out []string
	for name, v := range b.vms {
		if sim.Executing(b.host)[v] > 0 {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (b *booting) seen(name string) nodelink.Report {
	b.t.Helper()
	r := b.agent.reports.newest(b.vms[name])
	if r == nil {
		b.t.Fatalf("nothing was reported of %s", name)
	}
	return *r
}

func (b *booting) plan() nodelink.HostPlan {
	return nodelink.HostPlan{Cluster: b.cluster, Seq: 1, Shutdown: "stop", VMs: []nodelink.StartPlan{
		{VM: b.vms["db"], DelaySeconds: 30},
		{VM: b.vms["app"], Order: 1, DelaySeconds: 5},
		{VM: b.vms["app2"], Order: 1, DelaySeconds: 10},
		{VM: b.vms["web"], Order: 2},
		{VM: b.vms["lab"], ByHand: true},
	}}
}

// pass lets so much of a bubble's own time go by, which costs none, and everything
// that this wakes come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// A host that starts brings up what ran, in the order and with the delays it was
// told, and shows what waits and what is left; without any control plane.
func TestBringUpInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooting(t, "db", "app", "app2", "web", "lab", "other")
		if err := b.tell(b.plan()); err != nil {
			t.Fatal(err)
		}
		b.reboot()
		for _, step := range []struct {
			wait time.Duration
			up   string
		}{{0, "db other"}, {29 * time.Second, "db other"}, {2 * time.Second, "app app2 db other"}, {8 * time.Second, "app app2 db other"}, {2 * time.Second, "app app2 db other web"}, {time.Hour, "app app2 db other web"}} {
			pass(step.wait)
			if got := b.up(); got != step.up {
				t.Fatalf("%v later run %q, want %q", step.wait, got, step.up)
			}
			if step.wait == 0 {
				if r := b.seen("web"); r.Phase != vm.PhaseStarting || !strings.Contains(r.Reason, "its place is 2") || r.Epoch != 1 {
					t.Errorf("while it waits: %+v", r)
				}
			}
		}
		if r := b.seen("lab"); r.Phase != vm.PhaseExited || !strings.Contains(r.Reason, "autostart is off") {
			t.Errorf("what is not started: %+v", r)
		}
		_ = b.agent.Close()
		b.start() // the agent alone
		if got := b.up(); got != "app app2 db other web" {
			t.Errorf("after a restart of the agent run %q", got)
		}
	})
}

// What is decided while a VM waits for its turn counts: it is not started any more.
// An agent that dies meanwhile begins the order again, and starts nothing twice.
func TestBringUpDisturbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooting(t, "db", "app", "app2", "web", "lab", "other")
		if err := b.tell(b.plan()); err != nil {
			t.Fatal(err)
		}
		b.reboot()
		if err := b.send(b.vms["app"], 3, 1, &nodelink.PowerOff{}); err != nil {
			t.Fatal(err)
		}
		if err := b.send(b.vms["app2"], 3, 2, b.machine(b.vms["app2"])); err != nil {
			t.Fatal(err)
		}
		pass(31 * time.Second)
		if got := b.up(); got != "app2 db other" || b.seen("app2").Epoch != 2 {
			t.Errorf("run %q, %+v", got, b.seen("app2"))
		}
		_ = b.agent.Close()
		b.start()
		pass(time.Hour)
		if got := b.up(); got != "app2 db other web" {
			t.Errorf("after the agent died run %q", got)
		}
		for name, v := range b.vms {
			if n := sim.Executing(b.host)[v]; n > 1 {
				t.Errorf("%s runs %d times", name, n)
			}
		}
	})
}

// A host that is shut down while it still brings up starts nothing any more; what
// waited is brought up by the next start.
func TestShutdownEndsBringUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooting(t, "db", "web")
		if err := b.tell(nodelink.HostPlan{Cluster: b.cluster, Seq: 1, Shutdown: "stop", VMs: []nodelink.StartPlan{{VM: b.vms["db"], DelaySeconds: 30}, {VM: b.vms["web"], Order: 1}}}); err != nil {
			t.Fatal(err)
		}
		b.reboot()
		if err := b.agent.ShutdownGuests(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if got := b.up(); got != "" {
			t.Errorf("after the shutdown run %q", got)
		}
		_ = b.agent.Close()
		b.start()
		pass(time.Minute)
		if got := b.up(); got != "db web" {
			t.Errorf("after the next start run %q", got)
		}
	})
}

// A node that leaves its guests alone does so.
func TestShutdownLeaves(t *testing.T) {
	b := newBooting(t, "web")
	if err := b.tell(nodelink.HostPlan{Cluster: b.cluster, Seq: 1, Shutdown: "leave"}); err != nil {
		t.Fatal(err)
	}
	if err := b.agent.ShutdownGuests(t.Context(), time.Second); err != nil || b.up() != "web" {
		t.Errorf("%q %v", b.up(), err)
	}
}

// The newest plan counts, however late an older one comes, and survives the agent;
// one of another cluster is refused; a damaged one is none.
func TestHostPlans(t *testing.T) {
	b := newBooting(t, "web")
	late := nodelink.HostPlan{Cluster: b.cluster, Seq: 1, Shutdown: "stop"}
	now := nodelink.HostPlan{Cluster: b.cluster, Seq: 2, Shutdown: "leave"}
	if b.agent.plan.digest() != "" {
		t.Error("a plan nobody told")
	}
	if err := b.tell(now); err != nil {
		t.Fatal(err)
	}
	if err := b.tell(now); err != nil {
		t.Errorf("told again: %v", err)
	}
	if err := b.tell(late); !errs.Is(err, errs.StaleEpoch) {
		t.Errorf("a late one: %v", err)
	}
	if err := b.tell(nodelink.HostPlan{Cluster: id.New(), Seq: 9}); !errs.Is(err, errs.StaleEpoch) {
		t.Errorf("another cluster's: %v", err)
	}
	_ = b.agent.Close()
	b.start()
	if h, err := b.agent.Hello(t.Context(), "v"); err != nil || h.Plan != now.Digest() || b.agent.plan.shutdown() != node.ShutdownLeave {
		t.Errorf("after a restart: %+v %v", h, err)
	}
	_ = b.agent.Close()
	if err := os.WriteFile(filepath.Join(b.dir, hostPlanFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	if b.agent.plan.digest() != "" || b.agent.plan.shutdown() != "" || b.up() != "web" {
		t.Error("a damaged plan counts")
	}
}
