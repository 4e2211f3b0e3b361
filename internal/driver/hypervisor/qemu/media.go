package qemu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
	"github.com/novacron/novacron/internal/vocab/errs"
)

var _ contract.MediaChanger = (*Driver)(nil)

const (
	// driveName is the drive whose medium changes, and driveUnit its place on the
	// controller, beyond those of CDs.
	driveName = "drive"
	driveUnit = 7
	// mediumPrefix begins the names of nodes of media, and mediumWord, before the medium,
	// what their sets of descriptors are known by.
	mediumPrefix = "cd-"
	mediumWord   = "medium"
	// trayTime is how long a guest may take to give a medium back, and trayLook spaces
	// the looks.
	trayTime, trayLook = 5 * time.Second, 50 * time.Millisecond
	// trayTries is how often what needs an open tray is tried.
	trayTries = 5
)

// addDrive adds the drive whose medium changes, behind the controller of CDs where
// there is one.
func (w *jsonArgs) addDrive(m contract.Machine) {
	if len(m.CDs) == 0 {
		w.addVirtio("scsi", object{"id": "scsi0"})
	}
	dev := object{"driver": "scsi-cd", "id": driveName, "bus": "scsi0.0", "scsi-id": driveUnit}
	if m.Medium != nil {
		w.opaque = ",opaque=" + mediumWord + " " + m.Medium.ID
		dev["drive"] = w.addImage(mediumNode(m.Medium), m.Medium.File, true, nil)
		w.opaque = ""
	}
	w.add("-device", dev)
}

// mediumNode names the node of a medium; empty for none. QEMU's names have 31 bytes at
// most, and that of the file's node is longer.
func mediumNode(m *contract.Medium) string {
	if m == nil {
		return ""
	}
	return mediumPrefix + m.ID[:23]
}

// ChangeMedium implements contract.MediaChanger. What QEMU says is in the drive counts,
// no record of ours: so whoever comes after an agent that died goes on from there.
func (d *Driver) ChangeMedium(ctx context.Context, r contract.Ref, m *contract.Medium, force bool) error {
	if m != nil {
		if err := m.Validate(); err != nil {
			return err
		}
	}
	ctx, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return err
	}
	defer leave()
	g, err := d.started(r)
	if err != nil {
		return err
	}
	if !g.rec.Machine.Drive {
		return errs.New(errs.Unsupported, "VM %s was started without a drive whose medium changes: it has one when it starts again", r.VM)
	}
	err = g.changeMedium(ctx, m, force)
	if d.dead() {
		return errClosed()
	}
	return errors.Join(err, g.dropMedia(context.WithoutCancel(ctx)))
}

// changeMedium puts m into the drive instead of what is there.
func (g *guest) changeMedium(ctx context.Context, m *contract.Medium, force bool) error {
	now, err := g.drive(ctx)
	if err != nil {
		return err
	}
	if now.node() != mediumNode(m) {
		err = g.replaceMedium(ctx, now, m, force)
	} else if !now.Open {
		return nil
	}
	if err != nil {
		return err
	}
	return g.tell(ctx, "blockdev-close-tray", object{"id": driveName}, nil)
}

// replaceMedium leaves the tray open, with m in it. What can fail by itself comes before
// what the guest notices.
func (g *guest) replaceMedium(ctx context.Context, now drive, m *contract.Medium, force bool) error {
	if m != nil {
		if err := g.openMedium(ctx, m); err != nil {
			return err
		}
	}
	if now.node() != "" {
		if err := g.onTray(ctx, force, "blockdev-remove-medium", object{"id": driveName}); err != nil {
			return err
		}
	}
	if m == nil {
		return nil
	}
	return g.onTray(ctx, force, "blockdev-insert-medium", object{"id": driveName, "node-name": mediumNode(m)})
}

// onTray does something with the tray open. A guest that resets its controller, as
// firmware does when it starts, closes it: then it is opened again.
func (g *guest) onTray(ctx context.Context, force bool, name string, args object) error {
	for try := 1; ; try++ {
		if err := g.openTray(ctx, force); err != nil {
			return err
		}
		err := g.tell(ctx, name, args, nil)
		if _, refused := errors.AsType[*qmp.Error](err); !refused || try == trayTries {
			return err
		}
	}
}

// Medium implements contract.MediaChanger.
func (d *Driver) Medium(ctx context.Context, r contract.Ref) (string, error) {
	g, err := d.started(r)
	if err != nil || !g.rec.Machine.Drive {
		return "", err
	}
	now, err := g.drive(ctx)
	if err != nil || now.node() == "" {
		return "", err
	}
	return g.mediumID(ctx, now)
}

// mediumID reads which medium is in the drive: the set of descriptors that it was
// opened from says so.
func (g *guest) mediumID(ctx context.Context, now drive) (string, error) {
	sets, err := g.mediaSets(ctx)
	if err != nil {
		return "", err
	}
	for _, s := range sets {
		if s.path() == now.file() {
			return s.medium, nil
		}
	}
	return "", errs.New(errs.HostFailure, "the drive of VM %s has a medium that is not ours", g.ref.VM)
}

// drive is what query-block tells of the drive.
type drive struct {
	Device   string `json:"qdev"`
	Open     bool   `json:"tray_open"`
	Locked   bool   `json:"locked"`
	Inserted *struct {
		Node string `json:"node-name"`
		File string `json:"file"`
	} `json:"inserted"`
}

// node is the node of the medium; empty for none.
func (d drive) node() string {
	if d.Inserted == nil {
		return ""
	}
	return d.Inserted.Node
}

// file is what its file was opened from; empty for none.
func (d drive) file() string {
	if d.Inserted == nil {
		return ""
	}
	return d.Inserted.File
}

// locks tells whether the guest keeps a medium that is there.
func (d drive) locks() bool { return d.Locked && d.Inserted != nil }

func (g *guest) drive(ctx context.Context) (drive, error) {
	var all []drive
	if err := g.tell(ctx, "query-block", nil, &all); err != nil {
		return drive{}, err
	}
	for _, d := range all {
		if d.Device == driveName {
			return d, nil
		}
	}
	return drive{}, errs.New(errs.HostFailure, "the hypervisor of VM %s knows no drive", g.ref.VM)
}

// openMedium makes the nodes of a medium, from a file that is handed over open.
func (g *guest) openMedium(ctx context.Context, m *contract.Medium) error {
	nodes, err := g.mediaNodes(ctx)
	if err != nil {
		return err
	}
	name := mediumNode(m)
	if slices.Contains(nodes, name) {
		return nil // by who died then
	}
	f, err := image{fmt.Sprintf("the CD %s", m.ID[:12]), m.File, false, false}.open()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	c, err := g.monitor()
	if err != nil {
		return err
	}
	if slices.Contains(nodes, name+fileSuffix) {
		if err := g.tell(ctx, "blockdev-del", object{"node-name": name + fileSuffix}, nil); err != nil {
			return err
		}
	}
	timed, cancel := g.timed(ctx)
	set, err := c.AddFile(timed, mediumWord+" "+m.ID, f)
	cancel()
	if err != nil {
		return errs.New(errs.HostFailure, "the hypervisor of VM %s does not take a CD", g.ref.VM).Because(err)
	}
	if err := g.tell(ctx, "blockdev-add", fileNode(name, fdsetPath(set), true), nil); err != nil {
		return err
	}
	return g.tell(ctx, "blockdev-add", object{"driver": "raw", "node-name": name, "file": name + fileSuffix, "read-only": true}, nil)
}

// openTray opens the tray. A guest that has the medium in use keeps it locked: it is
// asked, and has a while to give it back. One that is halted is not asked: it would find
// that when it goes on, and give back what was left to it.
func (g *guest) openTray(ctx context.Context, force bool) error {
	wait, cancel := g.d.within(ctx, trayTime)
	defer cancel()
	for asked := false; ; asked = true {
		now, err := g.drive(ctx)
		if err != nil || now.Open {
			return err
		}
		if now.locks() && !force && g.Status().Phase == vm.PhasePaused {
			return errs.New(errs.InUse, "the guest has the CD in its drive in use, and cannot give it back as its VM is paused: resume that, or take the CD by force")
		}
		if asked && g.d.opt.Clock.Sleep(wait, trayLook) != nil {
			return g.kept(ctx)
		}
		if err := g.askTray(ctx, now, force, asked); err != nil {
			return err
		}
	}
}

// askTray has the tray open. Of one that is locked QEMU says only that it has asked the
// guest, for which once is enough.
func (g *guest) askTray(ctx context.Context, now drive, force, asked bool) error {
	force = force || now.Inserted == nil
	if asked && now.Locked && !force {
		return nil
	}
	return g.tell(ctx, "blockdev-open-tray", object{"id": driveName, "force": force}, nil)
}

// kept says why a tray did not open.
func (g *guest) kept(ctx context.Context) error {
	if ctx.Err() != nil {
		return errs.New(errs.Timeout, "the guest of VM %s has not given its CD back yet", g.ref.VM).Because(ctx.Err())
	}
	return errs.New(errs.InUse, "the guest keeps the CD in its drive, which it has in use: unmount it there, or eject it by force")
}

// dropMedia removes all nodes and sets of media but those in the drive.
func (g *guest) dropMedia(ctx context.Context) error {
	now, err := g.drive(ctx)
	if err != nil {
		return err
	}
	nodes, err := g.mediaNodes(ctx)
	if err != nil {
		return err
	}
	slices.Sort(nodes) // a format's node has the shorter name, and goes before its file's
	for _, n := range nodes {
		if strings.TrimSuffix(n, fileSuffix) == now.node() {
			continue
		}
		if err := g.tell(ctx, "blockdev-del", object{"node-name": n}, nil); err != nil {
			return err
		}
	}
	sets, err := g.mediaSets(ctx)
	if err != nil {
		return err
	}
	for _, s := range sets {
		if s.path() == now.file() {
			continue
		}
		if err := g.tell(ctx, "remove-fd", object{"fdset-id": s.number}, nil); err != nil {
			return err
		}
	}
	return nil
}

// mediaNodes lists the nodes of media.
func (g *guest) mediaNodes(ctx context.Context) (names []string, err error) {
	var all []struct {
		Name string `json:"node-name"`
	}
	if err := g.tell(ctx, "query-named-block-nodes", object{"flat": true}, &all); err != nil {
		return nil, err
	}
	for _, n := range all {
		if strings.HasPrefix(n.Name, mediumPrefix) {
			names = append(names, n.Name)
		}
	}
	return names, nil
}

// mediaSet is a set of descriptors of a medium.
type mediaSet struct {
	number int
	medium string
}

func (s mediaSet) path() string { return fdsetPath(s.number) }

func (g *guest) mediaSets(ctx context.Context) (sets []mediaSet, err error) {
	var all []struct {
		Number int `json:"fdset-id"`
		FDs    []struct {
			Opaque string `json:"opaque"`
		} `json:"fds"`
	}
	if err := g.tell(ctx, "query-fdsets", nil, &all); err != nil {
		return nil, err
	}
	for _, s := range all {
		for _, f := range s.FDs {
			if id, ours := strings.CutPrefix(f.Opaque, mediumWord+" "); ours {
				sets = append(sets, mediaSet{s.Number, id})
				break
			}
		}
	}
	return sets, nil
}
