package qemu

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// A disk that goes along is mirrored onto the target's, by a job in the source's QEMU.
// Names of jobs, and of the nodes that lead to the other host, tell them from all others.
const (
	moveJobPrefix = "move-"
	farSuffix     = "-far"
	mirrorSuffix  = "-mirror"
)

func moveJob(disk string) string { return moveJobPrefix + disk }

// job is a job of QEMU's on a disk.
type job struct {
	Device string `json:"device"`
	Status string `json:"status"`
	Ready  bool   `json:"ready"`
	Length int64  `json:"len"`
	Offset int64  `json:"offset"`
	Paused bool   `json:"paused"`
	IO     string `json:"io-status"`
	Error  string `json:"error"`
}

// stopped tells whether a job waits with what it could not copy.
func (j job) stopped() bool { return j.IO != "" && j.IO != "ok" }

// bad tells whether a job does not come to its end.
func (j job) bad() bool { return j.Error != "" || j.Status == "aborting" || j.stopped() }

// moveJobs lists the mirrors of a move.
func (g *guest) moveJobs(ctx context.Context) ([]job, error) {
	var all, ours []job
	if err := g.tell(ctx, "query-block-jobs", nil, &all); err != nil {
		return nil, err
	}
	for _, j := range all {
		if strings.HasPrefix(j.Device, moveJobPrefix) {
			ours = append(ours, j)
		}
	}
	return ours, nil
}

// mirror begins to mirror the disks that go along, and waits until each follows what the
// guest writes.
func (m *move) mirror(ctx context.Context) error {
	if err := m.beginMirrors(ctx, "report"); err != nil {
		return err
	}
	return m.untilJobs(ctx, func(j job) bool { return j.Ready })
}

// beginMirrors begins to mirror the disks that go along. Only what is the machine's own goes:
// the target has the same bases. Broken is what a job does that cannot write there.
func (m *move) beginMirrors(ctx context.Context, broken string) error {
	n := int64(len(m.Disks))
	for i, k := range m.g.rec.Machine.Disks {
		if !k.Moves() {
			continue
		}
		disk := diskName(i)
		if err := m.streams.prepare(contract.StreamDisks, 1); err != nil {
			return err
		}
		err := m.g.tell(ctx, "blockdev-add", object{
			"driver": "nbd", "node-name": disk + farSuffix, "export": disk,
			"server": object{"type": "unix", "path": m.g.seen(string(contract.StreamDisks))},
		}, nil)
		if err != nil {
			return errs.New(errs.HostFailure, "disk %s cannot be copied to the other host", disk).Because(err)
		}
		sync := "full"
		if k.Backing != nil {
			sync = "top"
		}
		how := object{
			"job-id": moveJob(disk), "device": disk, "target": disk + farSuffix, "sync": sync,
			"filter-node-name": disk + mirrorSuffix, "on-source-error": "report", "on-target-error": broken, "auto-dismiss": false,
		}
		if rate := m.options.BytesPerSecond; rate > 0 {
			how["speed"] = max(rate/n, 1)
		}
		if err := m.g.tell(ctx, "blockdev-mirror", how, nil); err != nil {
			return err
		}
	}
	return nil
}

// untilJobs waits until all mirrors are as they should be.
func (m *move) untilJobs(ctx context.Context, good func(job) bool) error {
	for {
		jobs, err := m.allJobs(ctx)
		if err != nil {
			return err
		}
		m.at.DisksMoved, m.at.DisksRemaining = 0, 0
		all := true
		for _, j := range jobs {
			m.at.DisksMoved += j.Offset
			m.at.DisksRemaining += j.Length - j.Offset
			if j.bad() {
				return errs.New(errs.HostFailure, "disk %s cannot be copied to the other host", strings.TrimPrefix(j.Device, moveJobPrefix)).Because(errors.New(j.Error))
			}
			all = all && good(j)
		}
		m.report(m.at.Stage)
		if all {
			return nil
		}
		if err := m.g.nudged(ctx); err != nil {
			return err
		}
	}
}

// allJobs gives the mirrors of a move, each of which is there.
func (m *move) allJobs(ctx context.Context) ([]job, error) {
	jobs, err := m.g.moveJobs(ctx)
	if err == nil && len(jobs) != len(m.Disks) {
		err = fmt.Errorf("%d of %d mirrors are left", len(jobs), len(m.Disks))
	}
	if err == nil && m.options.Warm {
		jobs, err = m.mended(ctx, jobs)
	}
	return jobs, err
}

// mirrorsLive tells whether no mirror has failed.
func (m *move) mirrorsLive(ctx context.Context) error {
	return m.untilJobs(ctx, func(job) bool { return true })
}

// finishMirrors ends the mirrors of a halted guest, which are then the same as its disks.
// A mirror that follows and is cancelled without force ends so, and leaves the guest its
// own disk.
func (m *move) finishMirrors(ctx context.Context) error {
	for i, k := range m.g.rec.Machine.Disks {
		if !k.Moves() {
			continue
		}
		if err := m.g.tell(ctx, "block-job-cancel", object{"device": moveJob(diskName(i))}, nil); err != nil {
			return err
		}
	}
	if err := m.untilJobs(ctx, func(j job) bool { return j.Status == "concluded" }); err != nil {
		return err
	}
	return m.g.dropMirrors(ctx)
}

// dropMirrors ends what mirrors there are, and removes the nodes that led to the target.
func (g *guest) dropMirrors(ctx context.Context) error {
	for {
		jobs, err := g.moveJobs(ctx)
		if err != nil {
			return err
		}
		if len(jobs) == 0 {
			return g.dropFarNodes(ctx)
		}
		for _, j := range jobs {
			g.dropJob(ctx, j)
		}
		if err := g.nudged(ctx); err != nil {
			return err
		}
	}
}

// dropJob takes a job one step nearer to its end. What it refuses is tried again.
func (g *guest) dropJob(ctx context.Context, j job) {
	var err error
	switch j.Status {
	case "concluded":
		err = g.tell(ctx, "job-dismiss", object{"id": j.Device}, nil)
	case "aborting":
	default:
		err = g.tell(ctx, "block-job-cancel", object{"device": j.Device, "force": true}, nil)
	}
	if err != nil {
		g.d.log.Debug("a mirror cannot be ended yet", "vm", g.ref.VM, "job", j.Device, "error", err)
	}
}

func (g *guest) dropFarNodes(ctx context.Context) error {
	var nodes []struct {
		Name string `json:"node-name"`
	}
	if err := g.tell(ctx, "query-named-block-nodes", object{"flat": true}, &nodes); err != nil {
		return err
	}
	for _, n := range nodes {
		if !strings.HasSuffix(n.Name, farSuffix) {
			continue
		}
		if err := g.tell(ctx, "blockdev-del", object{"node-name": n.Name}, nil); err != nil {
			return err
		}
	}
	return nil
}

// sameSizes refuses disks that are not as large as those that come.
func (g *guest) sameSizes(ctx context.Context, want map[id.ID]int64) error {
	have, err := g.ownDisks(ctx)
	if err != nil {
		return err
	}
	for disk, size := range want {
		if have[disk] != size {
			return errs.New(errs.InvalidSize, "disk %s has %d bytes here and %d where VM %s comes from: they are to be as large", disk, have[disk], size, g.ref.VM)
		}
	}
	return nil
}
