package hypertest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func mediaCases() []testCase {
	return []testCase{
		{"The medium in a drive changes under a live guest, and is known to the next agent", mediaChange},
		{"The medium in a drive changes under a guest that is halted", mediaHalted},
		{"A drive keeps its medium over suspend, and has what it is launched with", mediaStay},
		{"ChangeMedium refuses what is not there", mediaRefuse},
		{"A change of the medium that is broken off is settled by the next", mediaBrokenOff},
	}
}

// changer gives the driver's ability, or checks that it denies having it.
func (b *bench) changer() (contract.MediaChanger, bool) {
	b.Helper()
	c, is := b.Driver().(contract.MediaChanger)
	if is != b.Driver().Capabilities().Media {
		b.Fatalf("the driver is a MediaChanger: %v; its capabilities say %v", is, !is)
	}
	return c, is
}

// medium makes an image with a content of its own.
func (b *bench) medium(dir, content string) *contract.Medium {
	b.Helper()
	all := append([]byte(content), make([]byte, 64<<10-len(content))...)
	sum := sha256.Sum256(all)
	m := &contract.Medium{ID: hex.EncodeToString(sum[:])}
	m.File = contract.File{Path: filepath.Join(dir, m.ID), Format: "raw"}
	if err := os.WriteFile(m.File.Path, all, 0o644); err != nil { //nolint:gosec // as files of a node's cache of images are: guests' own users read them
		b.Fatal(err)
	}
	return m
}

// change changes a medium and looks whether it is what the hypervisor has.
func (b *bench) change(r contract.Ref, m *contract.Medium, force bool) {
	b.Helper()
	c, _ := b.changer()
	if err := c.ChangeMedium(b.ctx, r, m, force); err != nil {
		b.Fatalf("change to %+v: %v", m, err)
	}
	b.holds(r, m)
}

func (b *bench) holds(r contract.Ref, m *contract.Medium) {
	b.Helper()
	want := ""
	if m != nil {
		want = m.ID
	}
	c, _ := b.changer()
	if got, err := c.Medium(b.ctx, r); err != nil || got != want {
		b.Fatalf("the drive has %q, want %q; %v", got, want, err)
	}
}

// withDrive starts a machine with an empty drive, and makes two media for it; false for a
// driver without such drives.
func (b *bench) withDrive() (m contract.Machine, one, two *contract.Medium, ok bool) {
	b.Helper()
	if _, ok := b.changer(); !ok {
		return m, nil, nil, false
	}
	dir := ShortDir(b.T)
	m = b.Machine(b.T, Polite)
	m.Drive = true
	b.start(m)
	b.ready(m.VM)
	return m, b.medium(dir, "one"), b.medium(dir, "two"), true
}

func mediaChange(b *bench) {
	m, one, two, ok := b.withDrive()
	if !ok {
		return
	}
	b.holds(m.Ref, nil)
	for range 3 {
		for _, to := range []*contract.Medium{one, one, two, nil, nil} {
			b.change(m.Ref, to, to == two)
		}
	}
	b.change(m.Ref, two, false)
	b.adoptOne(m.VM, nil)
	b.holds(m.Ref, two)
	b.change(m.Ref, one, false)
	b.change(m.Ref, nil, true)
	b.clean(m)
}

// mediaHalted changes what the guest does not have in use, without its answer, and once
// more when it goes on: nothing that had to wait for that is in the way.
func mediaHalted(b *bench) {
	m, one, two, ok := b.withDrive()
	if !ok {
		return
	}
	b.change(m.Ref, one, false)
	if _, err := b.Driver().Pause(b.ctx, m.Ref); err != nil {
		b.Fatal(err)
	}
	for _, to := range []*contract.Medium{one, two, one, nil, two, nil, one} {
		b.change(m.Ref, to, false)
	}
	b.adoptOne(m.VM, nil)
	b.holds(m.Ref, one)
	b.change(m.Ref, two, true)
	if _, err := b.Driver().Resume(b.ctx, m.Ref); err != nil {
		b.Fatal(err)
	}
	b.holds(m.Ref, two)
	for _, to := range []*contract.Medium{one, two, nil} {
		b.change(m.Ref, to, false)
	}
	b.clean(m)
}

func mediaStay(b *bench) {
	if _, ok := b.changer(); !ok {
		return
	}
	dir := ShortDir(b.T)
	one, two := b.medium(dir, "one"), b.medium(dir, "two")
	m := b.Machine(b.T, Polite)
	m.Drive, m.Medium = true, one
	m.CDs = []contract.CD{b.cd(dir, "seed", false)}
	b.start(m)
	b.ready(m.VM)
	b.holds(m.Ref, one)
	b.change(m.Ref, two, false)
	if _, ok := b.suspender(); ok {
		file := b.saving()
		b.suspend(m.Ref, file)
		m.Epoch++
		m.Incoming, m.Medium = file, two
		b.start(m)
		b.holds(m.Ref, two)
		b.change(m.Ref, nil, false)
		b.change(m.Ref, one, false)
	}
	b.kill(m.Ref)
	m.Epoch++
	m.Incoming, m.Medium = "", nil
	b.start(m)
	b.holds(m.Ref, nil)
	b.change(m.Ref, one, false)
	b.clean(m)
}

func mediaRefuse(b *bench) {
	c, ok := b.changer()
	if !ok {
		return
	}
	dir := ShortDir(b.T)
	one := b.medium(dir, "one")
	m := b.launch(Polite)
	b.wantCode(c.ChangeMedium(b.ctx, m.Ref, one, false), errs.Unsupported, "a machine without a drive")
	b.holds(m.Ref, nil)
	with := b.Machine(b.T, Polite)
	with.Drive = true
	b.start(with)
	b.change(with.Ref, one, false)
	b.wantCode(c.ChangeMedium(b.ctx, contract.Ref{VM: with.VM, Epoch: 7}, nil, false), errs.StaleEpoch, "another epoch")
	b.wantCode(c.ChangeMedium(b.ctx, contract.Ref{VM: id.New(), Epoch: 1}, nil, false), errs.NotFound, "another VM")
	for what, bad := range map[string]contract.Medium{
		"no id":          {File: one.File},
		"another id":     {ID: "../../etc/shadow", File: one.File},
		"a relative":     {ID: one.ID, File: contract.File{Path: "cd", Format: "raw"}},
		"another format": {ID: one.ID, File: contract.File{Path: one.File.Path, Format: "qcow2"}},
	} {
		b.wantCode(c.ChangeMedium(b.ctx, with.Ref, &bad, false), errs.InvalidField, what)
	}
	without := b.Machine(b.T, Polite)
	without.Medium = one
	if _, err := b.Driver().Launch(b.ctx, without); !errs.Is(err, errs.InvalidField) {
		b.Errorf("a medium without a drive: %v", err)
	}
	b.kill(m.Ref)
	b.wantCode(c.ChangeMedium(b.ctx, m.Ref, one, false), errs.InvalidState, "a guest that ended")
	b.clean(m, with)
}

// mediaBrokenOff ends calls, and agents, at whatever moment they are: the next call
// brings what it is asked for.
func mediaBrokenOff(b *bench) {
	m, one, two, ok := b.withDrive()
	if !ok {
		return
	}
	for i, to := range []*contract.Medium{one, nil, two, one, nil, two} {
		c, _ := b.changer()
		ctx, cancel := context.WithCancel(b.ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = c.ChangeMedium(ctx, m.Ref, to, false) // it may be over before it is broken off
		}()
		if i%2 == 0 {
			cancel()
		} else {
			b.adoptOne(m.VM, nil)
		}
		<-done
		cancel()
		b.change(m.Ref, []*contract.Medium{nil, one, two}[i%3], false)
	}
	b.clean(m)
}
