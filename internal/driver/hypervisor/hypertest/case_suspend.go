package hypertest

import (
	"context"
	"os"
	"path/filepath"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func suspendCases() []testCase {
	return []testCase{
		{"Suspend ends the process, and the guest goes on from the file", suspends},
		{"A suspended guest is found by another agent, and killed to nothing", suspendedIsAdopted},
		{"A paused guest is suspended, too", suspendsPaused},
		{"Suspend refuses what does not run", suspendRefuses},
		{"A suspend that is broken off leaves the guest as it was", suspendBrokenOff},
		{"A saved memory that is not there starts nothing", incomingMissing},
	}
}

// suspender gives the driver's ability, or checks that it denies having it.
func (b *bench) suspender() (contract.Suspender, bool) {
	b.Helper()
	s, is := b.Driver().(contract.Suspender)
	if is != b.Driver().Capabilities().Suspend {
		b.Fatalf("the driver is a Suspender: %v; its capabilities say %v", is, !is)
	}
	return s, is
}

// saving gives a file for a saved memory.
func (b *bench) saving() string {
	b.Helper()
	return filepath.Join(ShortDir(b.T), "memory")
}

func (b *bench) suspend(r contract.Ref, file string) {
	b.Helper()
	d, _ := b.suspender()
	s, err := d.Suspend(b.ctx, r, file)
	if err != nil {
		b.Fatalf("suspend: %v", err)
	}
	if s.Phase != vm.PhaseSuspended || s.Ref != r || s.PID != 0 {
		b.Fatalf("suspend gave %+v", s)
	}
	if _, err := os.Stat(file); err != nil {
		b.Fatalf("suspended without a file: %v", err)
	}
}

// noFiles expects that nothing of a saved memory is left.
func (b *bench) noFiles(file string) {
	b.Helper()
	left, err := filepath.Glob(file + "*")
	if err != nil || len(left) > 0 {
		b.Fatalf("left of a saved memory: %v %v", left, err)
	}
}

func suspends(b *bench) {
	d, ok := b.suspender()
	if !ok {
		return
	}
	m := b.launch(Polite)
	b.ready(m.VM)
	for range 3 {
		file := b.saving()
		b.suspend(m.Ref, file)
		b.await(m.Ref, vm.PhaseSuspended)
		if s, err := d.Suspend(b.ctx, m.Ref, file); err != nil || s.Phase != vm.PhaseSuspended {
			b.Fatalf("suspended again: %+v %v", s, err)
		}
		if s := b.inspect(m.VM); s.Phase != vm.PhaseSuspended || s.Ref != m.Ref {
			b.Fatalf("inspect gives %+v", s)
		}
		m.Epoch++
		m.Incoming = file
		b.start(m)
		b.noFiles(file)
	}
	b.PowerOffGuest(b.T, m.VM) // it still listens
	b.await(m.Ref, vm.PhaseExited)
	b.clean(m)
}

func suspendedIsAdopted(b *bench) {
	if _, ok := b.suspender(); !ok {
		return
	}
	m := b.launch(Polite)
	file := b.saving()
	b.suspend(m.Ref, file)
	if s := b.adoptOne(m.VM, nil); s.Phase != vm.PhaseSuspended || s.Ref != m.Ref {
		b.Fatalf("another agent finds %+v", s)
	}
	b.clean(m)
}

func suspendsPaused(b *bench) {
	if _, ok := b.suspender(); !ok {
		return
	}
	m := b.launch(Polite)
	if _, err := b.Driver().Pause(b.ctx, m.Ref); err != nil {
		b.Fatal(err)
	}
	m.Incoming = b.saving()
	b.suspend(m.Ref, m.Incoming)
	m.Epoch++
	b.start(m)
	b.clean(m)
}

func suspendRefuses(b *bench) {
	d, ok := b.suspender()
	if !ok {
		return
	}
	m := b.launch(Polite)
	file := b.saving()
	try := func(r contract.Ref) error {
		_, err := d.Suspend(b.ctx, r, file)
		return err
	}
	b.wantCode(try(contract.Ref{VM: m.VM, Epoch: 7}), errs.StaleEpoch, "another epoch")
	b.wantCode(try(contract.Ref{VM: id.New(), Epoch: 1}), errs.NotFound, "another VM")
	b.kill(m.Ref)
	b.wantCode(try(m.Ref), errs.InvalidState, "a guest that ended")
	b.noFiles(file)
	b.clean(m)
}

func suspendBrokenOff(b *bench) {
	d, ok := b.suspender()
	if !ok {
		return
	}
	m := b.launch(Polite)
	file := b.saving()
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	if s, err := d.Suspend(ctx, m.Ref, file); err == nil {
		b.Fatalf("a suspend that was broken off gave %+v", s)
	}
	if s := b.inspect(m.VM); s.Phase != vm.PhaseRunning {
		b.Fatalf("it left the guest %+v", s)
	}
	b.noFiles(file)
	b.suspend(m.Ref, file)
	b.clean(m)
}

func incomingMissing(b *bench) {
	if _, ok := b.suspender(); !ok {
		return
	}
	m := b.Machine(b.T, Polite)
	m.Incoming = b.saving()
	if _, err := b.Driver().Launch(b.ctx, m); err == nil {
		b.Fatal("it goes on from nothing")
	}
	b.clean()
}
