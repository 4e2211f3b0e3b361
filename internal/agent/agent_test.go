package agent

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

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

// bench is a host whose agent may die and come back.
type bench struct {
	t       *testing.T
	dir     string
	host    *sim.Host
	cluster id.ID
	epoch   gen.NodeEpoch
	boot    string
	agent   *Agent
	vm      id.ID
	volume  id.ID
	op      id.ID
	head    nodelink.Header
	clock   clock.Clock
	node    id.ID
	// shared, unless empty, is the folder of a storage pool
	shared string
	// neighbours, unless nil, are the other nodes
	neighbours Neighbours
	// wrap, unless nil, stands between the agent and its driver
	wrap func(*sim.Driver) hypervisor.Driver
}

func newBench(t *testing.T) *bench {
	t.Helper()
	h, err := sim.NewHost(sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	b := &bench{t: t, dir: t.TempDir(), host: h, cluster: id.New(), boot: "boot-1", vm: id.New(), volume: id.New(), op: id.New(), clock: clock.System{}, node: id.New()}
	b.head = nodelink.Header{Cluster: b.cluster, VM: b.vm, OwnerEpoch: 1, Operation: b.op, OpSeq: 1, Attempt: 1, BudgetMS: 10_000}
	b.restart()
	t.Cleanup(func() { _ = b.agent.Close() })
	return b
}

// restart makes a new agent process on the same host and folder.
func (b *bench) restart() {
	b.t.Helper()
	if b.agent != nil {
		_ = b.agent.Close()
	}
	b.epoch++
	b.head.NodeEpoch = b.epoch
	vols, err := volumesim.Open(filepath.Join(b.dir, "volumes"), unit.TiB)
	if err != nil {
		b.t.Fatal(err)
	}
	b.agent, err = New(Config{
		Node: b.node, Pools: b.pools(), Cluster: b.cluster, Epoch: b.epoch, DataDir: b.dir, Boot: b.boot,
		NewHypervisor: func(s hypervisor.Sink) (hypervisor.Driver, error) {
			d := sim.New(b.host, s)
			if b.wrap != nil {
				return b.wrap(d), nil
			}
			return d, nil
		},
		Volumes: vols, Images: cacheOf(b.t, b.dir), Neighbours: b.neighbours, Clock: b.clock, Log: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		err = b.agent.Start(b.t.Context())
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func cacheOf(t *testing.T, dir string) *Cache {
	t.Helper()
	c, err := OpenCache(filepath.Join(dir, "images"), CacheOptions{Clock: clock.System{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// send carries out a command as a server would.
func (b *bench) send(step string, c nodelink.Fenced) (nodelink.Report, error) {
	b.t.Helper()
	h := b.head
	h.Step = step
	*c.Head() = h
	body, err := json.Marshal(c)
	if err != nil {
		b.t.Fatal(err)
	}
	v, err := b.agent.Handle(b.t.Context(), nil, c.Method(), body)
	r, _ := v.(nodelink.Report)
	return r, err
}

func (b *bench) launch() nodelink.Report {
	b.t.Helper()
	if _, err := b.send("make disks", &nodelink.CreateVolumes{Volumes: []nodelink.VolumeSpec{{ID: b.volume, SizeBytes: unit.MiB}}}); err != nil {
		b.t.Fatal(err)
	}
	r, err := b.send("launch", b.launchCommand())
	if err != nil || r.Phase != vm.PhaseRunning {
		b.t.Fatalf("launch: %+v %v", r, err)
	}
	return r
}

func (b *bench) launchCommand() *nodelink.Launch {
	return &nodelink.Launch{Machine: nodelink.Machine{CPUs: 1, MemoryBytes: 64 * unit.MiB, Volumes: []id.ID{b.volume}}}
}

func (b *bench) executing() int { return sim.Executing(b.host)[b.vm] }

func TestFence(t *testing.T) {
	later := func(f func(*nodelink.Header)) func(*bench) error {
		return func(b *bench) error {
			b.launch()
			f(&b.head)
			_, err := b.send("pause", &nodelink.Pause{})
			return err
		}
	}
	for name, c := range map[string]struct {
		do   func(*bench) error
		want errs.Code
	}{
		"LowerEpoch":     {later(func(h *nodelink.Header) { h.OwnerEpoch = 0 }), errs.StaleEpoch},
		"LowerAttempt":   {later(func(h *nodelink.Header) { h.Attempt = 0 }), errs.StaleAttempt},
		"EarlierOp":      {later(func(h *nodelink.Header) { h.OpSeq, h.Operation, h.Attempt = 0, id.New(), 99 }), errs.StaleAttempt},
		"OtherOpSameSeq": {later(func(h *nodelink.Header) { h.Operation = id.New() }), errs.Conflict},
		"OtherCluster":   {later(func(h *nodelink.Header) { h.Cluster = id.New() }), errs.Conflict},
		"OldIncarnation": {later(func(h *nodelink.Header) { h.NodeEpoch-- }), errs.StaleEpoch},
		"NextAttempt":    {later(func(h *nodelink.Header) { h.Attempt++ }), ""},
		"NextOp":         {later(func(h *nodelink.Header) { h.OpSeq, h.Operation, h.Attempt = 2, id.New(), 1 }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			err := c.do(b)
			if errs.CodeOf(err) != c.want {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if want := map[bool]int{true: 0, false: 1}[c.want == ""]; b.executing() != want {
				t.Errorf("%d execute after %v", b.executing(), err)
			}
		})
	}
}

// The fence is durable: a new agent process refuses what the old one would.
func TestFenceSurvivesRestart(t *testing.T) {
	b := newBench(t)
	b.head.OwnerEpoch, b.head.Attempt = 5, 3
	b.launch()
	b.restart()
	b.head.OwnerEpoch = 4
	if _, err := b.send("x", &nodelink.PowerOff{}); !errs.Is(err, errs.StaleEpoch) {
		t.Errorf("lower epoch after restart: %v", err)
	}
	b.head.OwnerEpoch, b.head.Attempt = 5, 2
	if _, err := b.send("x", &nodelink.PowerOff{}); !errs.Is(err, errs.StaleAttempt) {
		t.Errorf("lower attempt after restart: %v", err)
	}
	if b.executing() != 1 {
		t.Errorf("%d execute", b.executing())
	}
}

func TestSameStepSameAnswer(t *testing.T) {
	b := newBench(t)
	first := b.launch()
	b.host.Crash(b.vm, "test")
	again, err := b.send("launch", b.launchCommand())
	if err != nil || again != first {
		t.Errorf("repeated: %+v %v, first %+v", again, err, first)
	}
	if b.executing() != 0 {
		t.Error("the repeat of an answered step launched again")
	}
}

// A guest does not notice that its agent dies; the next one adopts it.
func TestAgentDies(t *testing.T) {
	b := newBench(t)
	b.launch()
	b.restart()
	if b.executing() != 1 {
		t.Fatalf("%d execute after the agent's restart", b.executing())
	}
	b.head.Attempt++
	if r, err := b.send("pause", &nodelink.Pause{}); err != nil || r.Phase != vm.PhasePaused {
		t.Errorf("pause an adopted guest: %+v %v", r, err)
	}
}

// Reboot: what the record says should run starts again, under its own epoch,
// with no control plane in sight; what should not, does not.
func TestHostReboots(t *testing.T) {
	for _, on := range []bool{true, false} {
		b := newBench(t)
		b.head.OwnerEpoch = 7
		b.launch()
		if !on {
			if _, err := b.send("stop", &nodelink.PowerOff{}); err != nil {
				t.Fatal(err)
			}
		}
		b.host.PowerLoss()
		b.boot = "boot-2"
		b.restart()
		if got := b.executing() == 1; got != on {
			t.Errorf("should run %v, runs %v", on, got)
		}
		if on {
			s, err := b.agent.driver.Inspect(t.Context(), b.vm)
			if err != nil || s.Epoch != 7 {
				t.Errorf("started as %+v %v", s, err)
			}
		}
	}
}

// A start that was asked while the node came back meets the guest that the node
// started by its own record: the later epoch wins, and one runs.
func TestLaunchAfterRelaunch(t *testing.T) {
	b := newBench(t)
	b.launch()
	b.host.PowerLoss()
	b.boot = "boot-2"
	b.restart()
	b.head.OwnerEpoch, b.head.OpSeq, b.head.Operation = 2, 2, id.New()
	if r, err := b.send("launch", b.launchCommand()); err != nil || r.Epoch != 2 || b.executing() != 1 {
		t.Errorf("%+v %v, %d execute", r, err, b.executing())
	}
}

// A guest that ended while the agent was away, with the host up, is reported and
// not started: nobody asked.
func TestGuestEndsWhileAgentIsAway(t *testing.T) {
	b := newBench(t)
	b.launch()
	_ = b.agent.Close()
	b.host.Crash(b.vm, "killed by signal 9")
	b.restart()
	if b.executing() != 0 {
		t.Error("it was started again")
	}
	got := b.agent.reports.batch()
	if len(got) != 1 || got[0].Phase != vm.PhaseCrashed {
		t.Errorf("reports %+v", got)
	}
}

// With its record lost or damaged, a running guest is adopted from its process,
// and nothing is started.
func TestRecordLost(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"Lost":      os.Remove,
		"Truncated": func(p string) error { return os.Truncate(p, 10) },
		"Garbage":   func(p string) error { return os.WriteFile(p, []byte("{}"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.head.OwnerEpoch = 4
			b.launch()
			if err := damage(b.agent.records.path(b.vm)); err != nil {
				t.Fatal(err)
			}
			b.boot = "boot-2" // even then
			b.restart()
			if b.executing() != 1 {
				t.Errorf("%d execute", b.executing())
			}
			b.head.OwnerEpoch, b.head.OpSeq = 3, 9
			if _, err := b.send("stop", &nodelink.PowerOff{}); !errs.Is(err, errs.StaleEpoch) {
				t.Errorf("the process's epoch does not fence: %v", err)
			}
		})
	}
}

// A failed launch leaves nothing that a reboot would start.
func TestFailedLaunchStaysDown(t *testing.T) {
	b := newBench(t)
	b.host.SetFaults(b.vm, sim.Faults{Launch: &sim.Failure{}})
	if _, err := b.send("make disks", &nodelink.CreateVolumes{Volumes: []nodelink.VolumeSpec{{ID: b.volume, SizeBytes: unit.MiB}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.send("launch", b.launchCommand()); err == nil {
		t.Fatal("the launch did not fail")
	}
	b.host.ClearFaults()
	b.boot = "boot-2"
	b.restart()
	if b.executing() != 0 {
		t.Error("the reboot started it")
	}
}

// Stopping the node ends the guests and keeps what should run.
func TestShutdownGuests(t *testing.T) {
	for name, f := range map[string]sim.Faults{"Obeys": {}, "Deaf": {IgnoreShutdown: true}} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.host.SetFaults(b.vm, f)
			b.launch()
			if err := b.agent.ShutdownGuests(t.Context(), 20*time.Millisecond); err != nil || b.executing() != 0 {
				t.Fatalf("%d execute, %v", b.executing(), err)
			}
			b.restart()
			if b.executing() != 1 {
				t.Error("it does not run again with the node")
			}
		})
	}
}

func TestEraseLeavesOnlyTheFence(t *testing.T) {
	b := newBench(t)
	b.launch()
	if _, err := b.send("erase", &nodelink.Erase{Volumes: []id.ID{b.volume}}); !errs.Is(err, errs.InvalidState) {
		t.Errorf("erase of a running VM: %v", err)
	}
	b.head.OpSeq, b.head.Operation = 2, id.New()
	if _, err := b.send("power off", &nodelink.PowerOff{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.send("erase", &nodelink.Erase{Volumes: []id.ID{b.volume}}); err != nil {
		t.Fatal(err)
	}
	if left := b.host.Leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	entries, err := os.ReadDir(filepath.Join(b.dir, "volumes"))
	if err != nil || len(entries) > 0 {
		t.Errorf("volumes left: %v %v", entries, err)
	}
	b.head.OpSeq = 1
	if _, err := b.send("launch", b.launchCommand()); !errs.Is(err, errs.StaleAttempt) {
		t.Errorf("a late launch of an erased VM: %v", err)
	}
}

func TestReporterKeepsTheNewest(t *testing.T) {
	r := newReporter(3)
	v := id.New()
	see := func(p vm.Phase) { r.observe(hypervisor.Status{Ref: hypervisor.Ref{VM: v, Epoch: 1}, Phase: p}) }
	see(vm.PhaseStarting)
	see(vm.PhaseRunning)
	sent := r.batch()
	if len(sent) != 1 || sent[0].Phase != vm.PhaseRunning || sent[0].Seq>>32 != 3 {
		t.Fatalf("batch %+v", sent)
	}
	see(vm.PhasePaused) // while the batch is under way
	r.taken(sent)
	if next := r.batch(); len(next) != 1 || next[0].Phase != vm.PhasePaused || next[0].Seq <= sent[0].Seq {
		t.Errorf("after an older one was taken: %+v", next)
	}
	r.taken(r.batch())
	if left := r.batch(); len(left) != 0 {
		t.Errorf("left %+v", left)
	}
}
