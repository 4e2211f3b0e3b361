package agent

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/sim"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func (b *bench) disks() {
	b.t.Helper()
	if _, err := b.send("make disks", &nodelink.CreateVolumes{Volumes: []nodelink.VolumeSpec{{ID: b.volume, SizeBytes: unit.MiB}}}); err != nil {
		b.t.Fatal(err)
	}
}

// last is the newest report of the bench's VM.
func (b *bench) last() nodelink.Report {
	b.agent.reports.mu.Lock()
	defer b.agent.reports.mu.Unlock()
	return b.agent.reports.last[b.vm]
}

// A guest that ends as soon as it runs is reported as ended, though the launch
// itself succeeded: the last word is the driver's.
func TestGuestEndsAsItStarts(t *testing.T) {
	b := newBench(t)
	b.host.SetFaults(b.vm, sim.Faults{CrashAfterLaunch: true})
	b.disks()
	r, err := b.send("launch", b.launchCommand())
	if err != nil || r.Phase != vm.PhaseCrashed {
		t.Errorf("launch answers %+v %v", r, err)
	}
	if got := b.last(); got.Phase != vm.PhaseCrashed {
		t.Errorf("the control plane would believe %+v", got)
	}
}

// What was looked at before the driver spoke again is the past.
func TestReportAt(t *testing.T) {
	r, v := newReporter(1), id.New()
	see := func(p vm.Phase) hypervisor.Status {
		return hypervisor.Status{Ref: hypervisor.Ref{VM: v, Epoch: 1}, Phase: p}
	}
	mark := r.mark()
	r.observe(see(vm.PhaseExited))
	if rep, ok := r.reportAt(mark, see(vm.PhaseRunning)); ok || rep.Phase != vm.PhaseExited {
		t.Errorf("the past was reported: %+v", rep)
	}
	r.observe(hypervisor.Status{Ref: hypervisor.Ref{VM: id.New()}, Phase: vm.PhaseRunning})
	if rep, ok := r.reportAt(r.mark(), see(vm.PhasePaused)); !ok || rep.Phase != vm.PhasePaused {
		t.Errorf("another VM stood in the way: %+v", rep)
	}
	r.fill(see(vm.PhaseCrashed))
	if got := r.last[v].Phase; got != vm.PhasePaused {
		t.Errorf("what was seen was replaced by %s", got)
	}
	r.forget(v)
	if len(r.last)+len(r.seen) != 2 { // the other VM's
		t.Errorf("left %v %v", r.last, r.seen)
	}
}

// A launch whose reply was lost and whose guest has ended since is done: it is
// neither run twice under one epoch nor a failure that unwinds its job.
func TestLaunchRepeatedAfterItsEnd(t *testing.T) {
	b := newBench(t)
	b.launch()
	b.host.Crash(b.vm, "killed by signal 9")
	b.head.Attempt++
	r, err := b.send("launch", b.launchCommand())
	if err != nil || r.Phase != vm.PhaseCrashed || b.executing() != 0 {
		t.Errorf("repeated: %+v %v, %d execute", r, err, b.executing())
	}
}

// When the host cannot be asked, nothing is known, and nothing is reported.
func TestNothingIsReportedUnseen(t *testing.T) {
	b := newBench(t)
	b.launch()
	_ = b.agent.driver.Close()
	b.head.OpSeq, b.head.Operation = 2, id.New()
	if r, err := b.send("shut down", &nodelink.Shutdown{GraceMS: 10}); err == nil {
		t.Errorf("a driver that is gone answered %+v", r)
	}
	b.agent.reports.mu.Lock()
	defer b.agent.reports.mu.Unlock()
	for v, r := range b.agent.reports.last {
		if v != b.vm || r.Phase != vm.PhaseRunning {
			t.Errorf("reported %+v", r)
		}
	}
}

func header(cluster id.ID, op id.ID, attempt int64) *nodelink.Header {
	return &nodelink.Header{Cluster: cluster, Operation: op, OpSeq: 1, Attempt: attempt}
}

// Once a later attempt wants its turn, an earlier one gets none, wherever it
// waits.
func TestEarlierAttemptsLeaveTheQueue(t *testing.T) {
	cluster, op := id.New(), id.New()
	g := newGuest(record{VM: id.New()})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	first, release, err := g.take(ctx, header(cluster, op, 1), cluster)
	if err != nil {
		t.Fatal(err)
	}
	again, third := make(chan error, 1), make(chan error, 1)
	go func() {
		_, _, err := g.take(ctx, header(cluster, op, 1), cluster)
		again <- err
	}()
	go func() {
		_, free, err := g.take(ctx, header(cluster, op, 3), cluster)
		if err == nil {
			free()
		}
		third <- err
	}()
	<-first.Done() // the third attempt is in the queue
	if _, _, err := g.take(ctx, header(cluster, op, 2), cluster); !errs.Is(err, errs.StaleAttempt) {
		t.Errorf("the second attempt: %v", err)
	}
	release()
	if err := <-third; err != nil {
		t.Errorf("the third attempt: %v", err)
	}
	if err := <-again; !errs.Is(err, errs.StaleAttempt) {
		t.Errorf("the first attempt, again: %v", err)
	}
	if len(g.turn) != 1 {
		t.Error("the turn was lost")
	}
}

// What the fence refuses neither waits nor ends what runs.
func TestRefusedCommandsDisturbNobody(t *testing.T) {
	cluster, op := id.New(), id.New()
	g := newGuest(record{VM: id.New(), Epoch: 2})
	h := header(cluster, op, 1)
	h.OwnerEpoch = 2
	running, release, err := g.take(t.Context(), h, cluster)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	for want, h := range map[errs.Code]*nodelink.Header{
		errs.Conflict:   {Cluster: id.New(), OwnerEpoch: 9, OpSeq: 9, Attempt: 9},
		errs.StaleEpoch: {Cluster: cluster, OwnerEpoch: 1, OpSeq: 9, Attempt: 9},
	} {
		if _, _, err := g.take(t.Context(), h, cluster); !errs.Is(err, want) {
			t.Errorf("want %s, got %v", want, err)
		}
	}
	if running.Err() != nil {
		t.Error("a refused command ended the one that runs")
	}
}

// A step that was broken off is worth another try, whatever the driver called it;
// one that failed in its own time is not.
func TestInterrupted(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	raw := errors.New("context canceled somewhere below")
	if err := interrupted(over, raw); !errs.Is(err, errs.Timeout) || !errors.Is(err, raw) {
		t.Errorf("broken off: %v", err)
	}
	if err := interrupted(t.Context(), raw); !errors.Is(err, raw) || errs.Is(err, errs.Timeout) {
		t.Errorf("failed: %v", err)
	}
	if err := interrupted(over, nil); err != nil {
		t.Errorf("succeeded: %v", err)
	}
}

// Whoever waits for another VM's fetch of the same file gives up in its own time,
// and the cache remembers nobody.
func TestCacheWaitsNoLongerThanAsked(t *testing.T) {
	c := cacheOf(t, t.TempDir())
	f := nodelink.ImageFile{SHA256: strings.Repeat("a", 64), SizeBytes: 1}
	begun, finish, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- c.Ensure(t.Context(), f, func(context.Context, io.Writer) error {
			close(begun)
			<-finish
			return io.ErrUnexpectedEOF
		})
	}()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Ensure(ctx, f, nil); !errs.Is(err, errs.Timeout) {
		t.Errorf("the second: %v", err)
	}
	close(finish)
	if err := <-done; !errs.Is(err, errs.NodeUnreachable) {
		t.Errorf("the first: %v", err)
	}
	if len(c.busy) != 0 {
		t.Errorf("left %v", c.busy)
	}
}
