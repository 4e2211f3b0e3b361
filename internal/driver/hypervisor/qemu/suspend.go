package qemu

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/unit"
)

var _ contract.Suspender = (*Driver)(nil)

const (
	// besideMemory is what a saved machine needs beside its memory.
	besideMemory = 64 * unit.MiB
	// saveRate bounds how fast memory is written, in bytes per second; QEMU's own
	// default is meant for networks that others use too.
	saveRate = 16 * unit.GiB
	// lookEvery spaces the looks at a migration under way.
	lookEvery = 10 * time.Millisecond
	// takeBackTime bounds taking back a suspend that failed.
	takeBackTime = 30 * time.Second
	// stateName is what the hypervisor calls the file.
	stateName = "state"
)

// suspendRecord is a suspend under way, in asked.json.
type suspendRecord struct {
	File string `json:"file"`
	// Paused: was the guest halted before?
	Paused bool `json:"paused,omitempty"`
}

// savedRecord stands beside a saved memory: which machine it is of. It is there
// before the memory's file is.
type savedRecord struct {
	Epoch gen.OwnerEpoch `json:"epoch"`
	Type  string         `json:"type"`
	Accel string         `json:"accel"`
	CPU   string         `json:"cpu,omitempty"` // empty: of an earlier program, unnamedCPU
	Agent bool           `json:"agent,omitempty"`
	// Layout is 0 in what an earlier program saved.
	Layout int `json:"layout,omitempty"`
}

func savedPath(file string) string { return file + ".json" }
func partPath(file string) string  { return file + ".part" }

// readSaved tells of which machine a saved memory is; errs.NotFound when it is not
// there, or not whole.
func readSaved(file string) (savedRecord, error) {
	var rec savedRecord
	gone := errs.New(errs.NotFound, "there is no saved memory to go on from on this node")
	if _, err := os.Stat(file); err != nil {
		return rec, gone.Because(err)
	}
	b, err := os.ReadFile(savedPath(file))
	if err == nil {
		err = json.Unmarshal(b, &rec)
	}
	if err != nil {
		return rec, gone.Because(err)
	}
	return rec, nil
}

// asSuspended gives the record of a machine that goes on from a saved memory: its
// board, its processor and its devices are those it had.
func asSuspended(rec machineRecord) (machineRecord, error) {
	if rec.Machine.Incoming == "" {
		return rec, nil
	}
	saved, err := readSaved(rec.Machine.Incoming)
	if err != nil {
		return rec, err
	}
	if saved.Accel != rec.Accel {
		return rec, errs.New(errs.HostFailure, "VM %s was suspended under %s, and this node has %s now: its processor would be another one",
			rec.Machine.VM, saved.Accel, rec.Accel)
	}
	rec.Agent = saved.Agent
	rec = rec.laidOut(saved.Layout)
	rec.Type, rec.CPU = saved.Type, cmp.Or(saved.CPU, unnamedCPU(saved.Accel))
	return rec, nil
}

// Suspend implements contract.Suspender.
func (d *Driver) Suspend(ctx context.Context, r contract.Ref, file string) (contract.Status, error) {
	ctx, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return contract.Status{}, err
	}
	defer leave()
	if g := d.guest(r.VM); g != nil && g.Status().Ref == r && g.Status().Phase == vm.PhaseSuspended {
		return g.Status(), nil
	}
	g, err := d.started(r)
	if err == nil {
		err = roomFor(file, g.rec.Machine)
	}
	if err != nil {
		return contract.Status{}, err
	}
	return d.suspend(ctx, g, file)
}

// suspend saves a guest and ends it, or has it go on.
func (d *Driver) suspend(ctx context.Context, g *guest, file string) (contract.Status, error) {
	if err := g.noteSuspend(&suspendRecord{File: file, Paused: g.Status().Phase == vm.PhasePaused}); err != nil {
		return contract.Status{}, err
	}
	err := g.save(ctx, file)
	if d.dead() {
		return contract.Status{}, errClosed() // left as it is, for the next agent
	}
	s := g.settleSuspend(ctx)
	switch {
	case s.Phase == vm.PhaseSuspended:
		return s, nil
	case err == nil:
		err = errs.New(errs.HostFailure, "VM %s is %s after it was suspended: %s", g.ref.VM, s.Phase, s.Reason)
	case ctx.Err() != nil:
		err = errs.New(errs.Timeout, "the memory of VM %s was not written in time, and it goes on", g.ref.VM).Because(err)
	}
	return contract.Status{}, err
}

// roomFor refuses what the file's folder has no room for.
func roomFor(file string, m contract.Machine) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(file), &fs); err != nil {
		return errs.New(errs.HostFailure, "the folder of saved memory cannot be examined").Because(err)
	}
	free, need := int64(fs.Bavail)*fs.Bsize, m.MemoryBytes+besideMemory
	if free < need {
		return errs.New(errs.NoSpace, "the memory of VM %s may take %s on disk, and %s are free there", m.VM, unit.FormatBytes(need), unit.FormatBytes(free))
	}
	return nil
}

// noteSuspend remembers, on disk, that a suspend is under way, or that none is.
func (g *guest) noteSuspend(s *suspendRecord) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	asked := g.asked
	asked.Suspend = s
	if err := g.write(askedFile, asked); err != nil {
		return err
	}
	g.asked = asked
	return nil
}

// save halts the guest and writes it to a file, which appears at the end.
func (g *guest) save(ctx context.Context, file string) error {
	ctx, cancel := g.untilEnd(ctx)
	defer cancel()
	c, err := g.monitor()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(partPath(file), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return errs.New(errs.HostFailure, "the saved memory of VM %s cannot be made", g.ref.VM).Because(err)
	}
	defer func() { _ = f.Close() }()
	for _, step := range []func() error{
		func() error { return c.Execute(ctx, "stop", nil, nil) },
		func() error { // one that arrived from another host has what that needed still
			return g.tellMigration(ctx, noCapabilities(), object{"max-bandwidth": saveRate})
		},
		func() error { return c.SendFile(ctx, stateName, f) },
		func() error { return c.Execute(ctx, "migrate", object{"uri": "fd:" + stateName}, nil) },
		func() error { return g.migrated(ctx, c) },
	} {
		if err := step(); err != nil {
			return errs.New(errs.GuestFailure, "the memory of VM %s cannot be saved", g.ref.VM).Because(err)
		}
	}
	if err := g.commit(f, file); err != nil {
		return errs.New(errs.HostFailure, "the saved memory of VM %s cannot be kept", g.ref.VM).Because(err)
	}
	return nil
}

// commit makes the file appear, whole: with that the guest is suspended, unless its end
// has been judged by then.
func (g *guest) commit(f *os.File, file string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	b, err := json.Marshal(savedRecord{Epoch: g.ref.Epoch, Type: g.rec.Type, Accel: g.rec.Accel, CPU: g.rec.CPU, Agent: g.rec.Agent, Layout: g.rec.Layout})
	if err != nil {
		return err
	}
	if err := durable.Replace(savedPath(file), b, true); err != nil {
		return err
	}
	g.mu.Lock() // settle judges by whether the file is there
	defer g.mu.Unlock()
	select {
	case <-g.ended:
		return errors.New("it ended before its memory was whole")
	default:
	}
	if err := os.Rename(partPath(file), file); err != nil {
		return err
	}
	return durable.SyncFolder(file)
}

// monitor is the control connection.
func (g *guest) monitor() (*qmp.Client, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mon == nil {
		return nil, errs.New(errs.HostFailure, "the hypervisor of VM %s does not answer", g.ref.VM)
	}
	return g.mon, nil
}

// migration is what the hypervisor tells of one.
type migration struct {
	Status string `json:"status"`
	Desc   string `json:"error-desc"`
}

// migrated waits for a migration to be complete.
func (g *guest) migrated(ctx context.Context, c *qmp.Client) error {
	for {
		var m migration
		if err := c.Execute(ctx, "query-migrate", nil, &m); err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		switch m.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("the hypervisor says %s: %s", m.Status, m.Desc)
		}
		if err := g.d.opt.Clock.Sleep(ctx, lookEvery); err != nil {
			return context.Cause(ctx)
		}
	}
}

// whole tells whether the suspend under way has come to its decision: the file of
// this very incarnation is there.
func (g *guest) whole() bool {
	if g.asked.Suspend == nil {
		return false
	}
	saved, err := readSaved(g.asked.Suspend.File)
	return err == nil && saved.Epoch == g.ref.Epoch
}

// judge is endOf for a guest that may be suspended. It is called with g.mu held.
func (g *guest) judge(e *keeper.Exit) (vm.Phase, string) {
	if !g.asked.Kill && g.whole() {
		return vm.PhaseSuspended, ""
	}
	if !g.asked.Kill && g.awaits() {
		return vm.PhaseExited, contract.NotReceived
	}
	return endOf(g.asked, e)
}

// settleSuspend brings a suspend to its end, whoever began it: what is saved ends,
// and what is not goes on as it was.
func (g *guest) settleSuspend(ctx context.Context) contract.Status {
	ctx, cancel := g.d.within(context.WithoutCancel(ctx), takeBackTime)
	defer cancel()
	var err error
	g.mu.Lock()
	whole := g.whole()
	g.mu.Unlock()
	if whole {
		if err = g.kill(ctx); err == nil {
			g.settle(ctx)
		}
	} else {
		err = g.goOn(ctx)
	}
	if err != nil && g.Status().Phase.OnNode() {
		g.d.log.Error("a suspend that was broken off could not be settled", "vm", g.ref.VM, "err", err)
	}
	g.d.out.Flush()
	return g.Status()
}

// goOn takes a suspend back: no file is left, and the guest is as it was.
func (g *guest) goOn(ctx context.Context) error {
	g.mu.Lock()
	was := *g.asked.Suspend
	g.mu.Unlock()
	c, err := g.monitor()
	if err == nil {
		err = g.cancelMigration(ctx, c)
	}
	if err == nil && !was.Paused {
		err = c.Execute(ctx, "cont", nil, nil)
	}
	for _, path := range []string{partPath(was.File), savedPath(was.File)} {
		if e := os.Remove(path); e != nil && !missing(e) {
			err = errors.Join(err, e)
		}
	}
	if err == nil {
		err = g.noteSuspend(nil)
	}
	g.refresh(ctx)
	return err
}

// cancelMigration ends a migration that is under way, and returns when it has ended. QEMU
// tells of the end before it has set the state of the machine for it, and aborts when it
// is told in between that the machine is to go on.
func (g *guest) cancelMigration(ctx context.Context, c *qmp.Client) error {
	if err := c.Execute(ctx, "migrate_cancel", nil, nil); err != nil {
		return err
	}
	for {
		var m migration
		if err := c.Execute(ctx, "query-migrate", nil, &m); err != nil {
			return err
		}
		is, err := runState(ctx, c)
		if err != nil {
			return err
		}
		if m.ended() && is != "finish-migrate" {
			return nil
		}
		if err := g.d.opt.Clock.Sleep(ctx, lookEvery); err != nil {
			return err
		}
	}
}

// ended tells whether no migration is under way.
func (m migration) ended() bool {
	switch m.Status {
	case "", "none", "completed", "failed", "cancelled":
		return true
	}
	return false
}

// runState is the state that the hypervisor says its machine is in.
func runState(ctx context.Context, c *qmp.Client) (string, error) {
	var is struct {
		Status string `json:"status"`
	}
	err := c.Execute(ctx, "query-status", nil, &is)
	return is.Status, err
}

// incoming loads a saved memory into a hypervisor that waits for it. The file is
// gone before anything executes: memory that is older than the disks must never be
// taken up again.
func (g *guest) incoming(ctx context.Context, c *qmp.Client) error {
	file := g.rec.Machine.Incoming
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return errs.New(errs.HostFailure, "the saved memory of VM %s cannot be opened", g.ref.VM).Because(err)
	}
	defer func() { _ = f.Close() }()
	err = c.SendFile(ctx, stateName, f)
	if err == nil {
		err = c.Execute(ctx, "migrate-incoming", object{"uri": "fd:" + stateName}, nil)
	}
	if err == nil {
		err = g.migrated(ctx, c)
	}
	if err != nil {
		return errs.New(errs.GuestFailure, "the saved memory of VM %s cannot be taken up; it is kept", g.ref.VM).Because(err)
	}
	if err := os.Remove(file); err != nil {
		return errs.New(errs.HostFailure, "the saved memory of VM %s cannot be used up", g.ref.VM).Because(err)
	}
	if err := durable.SyncFolder(file); err != nil {
		return errs.New(errs.HostFailure, "the saved memory of VM %s cannot be used up", g.ref.VM).Because(err)
	}
	_ = os.Remove(savedPath(file))
	return nil
}
