package hypertest

import (
	"net"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func moveCases() []testCase {
	return []testCase{
		{"A machine moves to another host and goes on there", onTwo(moves)},
		{"A machine moves back and forth", onTwo(movesBack)},
		{"A machine moves without the disks that both hosts have", onTwo(movesShared)},
		{"A paused machine moves, and stays paused", onTwo(movesPaused)},
		{"A machine that waits for its memory executes nothing, and is killed at any time", onTwo(incomingWaits)},
		{"A machine that was sent stays halted, whoever looks, until it is told", onTwo(sentStays)},
		{"A machine that was sent goes on when its target is gone", onTwo(sentGoesOn)},
		{"What cannot be moved is refused", onTwo(moveRefuses)},
		{"What does not fit is not received", onTwo(receiveRefuses)},
		{"Progress tells of each stage, in order", onTwo(moveProgress)},
		{"A move under way is adjusted, and nothing else is", onTwo(adjusts)},
		{"The memory of a machine that runs is sampled, and of one that was sent it is not", onTwo(samples)},
	}
}

func moves(h *hosts) {
	m := h.launch(Polite)
	h.ready(m.VM)
	t := h.depart(m)
	h.sent(t)
	if _, err := h.send(h.ctx, t, nil); err != nil {
		h.Fatalf("sent again: %v", err)
	}
	h.handOver(t)
	h.arrivedRuns(t)
	h.far.PowerOffGuest(h.T, m.VM) // it still listens
	h.far.await(t.to.Ref, vm.PhaseExited)
	h.far.clean(t.to)
}

// arrivedRuns expects that one that was taken over counts as arrived.
func (h *hosts) arrivedRuns(t trip) {
	h.Helper()
	if s, err := h.far.migrator().Arrived(h.ctx, t.to.Ref); err != nil || s.Phase != vm.PhaseRunning {
		h.Fatalf("one that runs has arrived: %+v %v", s, err)
	}
}

func movesBack(h *hosts) {
	m := h.launch(Polite)
	h.ready(m.VM)
	for range 3 {
		t := h.depart(m)
		h.sent(t)
		h.handOver(t)
		m = t.to
		h.bench, h.far = h.far, h.bench
	}
	h.PowerOffGuest(h.T, m.VM)
	h.await(m.Ref, vm.PhaseExited)
	h.clean(m)
}

func movesShared(h *hosts) {
	m := h.Machine(h.T, Polite)
	for i := range m.Disks {
		m.Disks[i].Shared = true
	}
	h.start(m)
	h.ready(m.VM)
	d, err := h.migrator().Depart(h.ctx, m.Ref, id.New(), contract.MoveOptions{})
	if err != nil || len(d.Disks) > 0 {
		h.Fatalf("%d disks go along, %v", len(d.Disks), err)
	}
	for range 2 {
		t := h.depart(m)
		var moved int64
		if _, err := h.send(h.ctx, t, func(p contract.Progress) { moved = max(moved, p.DisksMoved) }); err != nil || moved > 0 {
			h.Fatalf("%d bytes of disks moved, %v", moved, err)
		}
		h.arrived(t)
		h.handOver(t)
		m = t.to
		h.bench, h.far = h.far, h.bench
	}
	h.PowerOffGuest(h.T, m.VM) // it still listens
	h.await(m.Ref, vm.PhaseExited)
	h.clean(m)
}

func movesPaused(h *hosts) {
	m := h.launch(Polite)
	h.ready(m.VM)
	if _, err := h.Driver().Pause(h.ctx, m.Ref); err != nil {
		h.Fatal(err)
	}
	t := h.depart(m)
	h.sent(t)
	if s, err := h.far.Driver().Pause(h.ctx, t.to.Ref); err != nil || s.Phase != vm.PhasePaused {
		h.Fatalf("taken over halted: %+v %v", s, err)
	}
	h.kill(m.Ref)
	h.clean(m)
	if s := h.far.adoptOne(m.VM, nil); s.Phase != vm.PhasePaused {
		h.Fatalf("another agent finds %+v", s)
	}
	h.far.resume(t.to.Ref)
	h.far.PowerOffGuest(h.T, m.VM)
	h.far.await(t.to.Ref, vm.PhaseExited)
	h.far.clean(t.to)
}

func incomingWaits(h *hosts) {
	m := h.launch(Polite)
	t := h.depart(m)
	for range 2 {
		for name, err := range h.far.everyCall(t.to.Ref) {
			if name != "console" {
				h.wantCode(err, errs.InvalidState, name+" of one that waits")
			}
		}
		_, err := h.far.Driver().Launch(h.ctx, t.to)
		h.wantCode(err, errs.InvalidState, "launch of one that waits")
		if s := h.far.adoptOne(m.VM, nil); s.Phase != vm.PhaseIncoming || s.Ref != t.to.Ref {
			h.Fatalf("another agent finds %+v", s)
		}
	}
	h.sent(t) // it still can
	if s := h.far.adoptOne(m.VM, nil); s.Phase != vm.PhaseIncoming {
		h.Fatalf("another agent finds what has arrived %+v", s)
	}
	h.arrived(t)
	h.far.kill(t.to.Ref)
	h.far.clean(t.to)
	h.clean(m)
}

func sentStays(h *hosts) {
	m := h.launch(Polite)
	t := h.depart(m)
	h.sent(t)
	if s := h.adoptOne(m.VM, nil); s.Phase != vm.PhasePaused || s.Reason != contract.SentAway {
		h.Fatalf("another agent finds %+v", s)
	}
	if _, err := h.send(h.ctx, t, nil); err != nil {
		h.Fatalf("sent again: %v", err)
	}
	_, err := h.migrator().Depart(h.ctx, m.Ref, id.New(), contract.MoveOptions{})
	h.wantCode(err, errs.InvalidState, "departure of what was sent")
	h.wantCode(h.Driver().Shutdown(h.ctx, m.Ref), errs.InvalidState, "shutdown of what was sent")
	h.handOver(t)
	h.far.clean(t.to)
}

func sentGoesOn(h *hosts) {
	m := h.launch(Polite)
	h.ready(m.VM)
	t := h.depart(m)
	h.sent(t)
	h.far.CrashGuest(h.T, m.VM)
	h.far.rec.Await(h.T, m.VM, "the end", func(s contract.Status) bool { return !s.Phase.OnNode() })
	h.far.clean(t.to)
	h.adoptOne(m.VM, nil)
	h.resume(m.Ref)
	if s := h.adoptOne(m.VM, nil); s.Phase != vm.PhaseRunning {
		h.Fatalf("another agent finds %+v", s)
	}
	again := h.depart(m) // and can be moved again
	h.sent(again)
	h.handOver(again)
	h.far.clean(again.to)
}

func moveRefuses(h *hosts) {
	m := h.launch(Polite)
	depart := func(r contract.Ref) error {
		_, err := h.migrator().Depart(h.ctx, r, id.New(), contract.MoveOptions{})
		return err
	}
	send := func(r contract.Ref, l contract.Landing) error {
		_, err := h.migrator().Send(h.ctx, r, l, NewWire(nil).Dial, nil)
		return err
	}
	h.wantCode(depart(contract.Ref{VM: m.VM, Epoch: 7}), errs.StaleEpoch, "another epoch departs")
	h.wantCode(depart(contract.Ref{VM: id.New(), Epoch: 1}), errs.NotFound, "another VM departs")
	landing := contract.Landing{Ref: at(m, m.Epoch+1).Ref, Migration: id.New(), Pass: []byte("x")}
	h.wantCode(send(m.Ref, landing), errs.InvalidState, "what has not departed is sent")
	_, err := h.migrator().Depart(h.ctx, m.Ref, id.New(), contract.MoveOptions{Channels: 2, Compression: "lz4"})
	h.wantCode(err, errs.InvalidField, "an unknown compression")
	_, err = h.migrator().Depart(h.ctx, m.Ref, id.New(), contract.MoveOptions{Downtime: -1})
	h.wantCode(err, errs.OutOfRange, "a downtime below 0")
	if err := depart(m.Ref); err != nil {
		h.Fatal(err)
	}
	h.wantCode(send(m.Ref, landing), errs.InvalidState, "another migration")
	near, far := net.Pipe()
	defer func() { _ = near.Close() }()
	err = h.migrator().Enter(h.ctx, m.Ref, contract.StreamMemory, far)
	h.wantCode(err, errs.InvalidState, "a stream into what runs")
	if s := h.inspect(m.VM); s.Phase != vm.PhaseRunning {
		h.Fatalf("refusals left %+v", s)
	}
	h.kill(m.Ref)
	h.wantCode(depart(m.Ref), errs.InvalidState, "a guest that ended departs")
	h.clean(m)
}

func receiveRefuses(h *hosts) {
	m := h.launch(Polite)
	d, err := h.migrator().Depart(h.ctx, m.Ref, id.New(), contract.MoveOptions{})
	if err != nil {
		h.Fatal(err)
	}
	for name, spoil := range map[string]func(*contract.Machine, *contract.Departure){
		"another disk":         func(m *contract.Machine, _ *contract.Departure) { m.Disks[0].ID = id.New() },
		"a disk less":          func(m *contract.Machine, _ *contract.Departure) { m.Disks[0].ReadOnly = true },
		"a medium that is not": func(_ *contract.Machine, d *contract.Departure) { d.Medium = "something" },
		"no request":           func(_ *contract.Machine, d *contract.Departure) { d.Request = nil },
		"another hypervisor":   func(_ *contract.Machine, d *contract.Departure) { d.Hypervisor = "another" },
		"from a file":          func(m *contract.Machine, _ *contract.Departure) { m.Incoming = "/file" },
	} {
		to, dep := h.far.Twin(h.T, m), d
		spoil(&to, &dep)
		if _, err := h.far.migrator().Receive(h.ctx, to, dep); err == nil || errs.CodeOf(err) == errs.Internal {
			h.Errorf("%s: %v, want a refusal with a code", name, err)
		}
	}
	h.far.clean()
	h.clean(m)
}

func moveProgress(h *hosts) {
	m := h.launch(Polite)
	t := h.depart(m)
	var seen []contract.Stage
	var last contract.Progress
	if _, err := h.send(h.ctx, t, func(p contract.Progress) {
		if len(seen) == 0 || seen[len(seen)-1] != p.Stage {
			seen = append(seen, p.Stage)
		}
		last = p
	}); err != nil {
		h.Fatal(err)
	}
	want := []contract.Stage{contract.StageDisks, contract.StageMemory, contract.StageSwitchover, contract.StageSent}
	for i, s := range want {
		if i >= len(seen) || seen[i] != s {
			h.Fatalf("seen %v, want %v", seen, want)
		}
	}
	if last.Total <= 0 || last.DisksRemaining != 0 || last.MemoryRemaining != 0 {
		h.Errorf("at the end: %+v", last)
	}
	h.arrived(t)
	h.handOver(t)
	h.far.clean(t.to)
}
