package agent

import (
	"testing"

	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func (b *bench) writeSeed(step, userData string) {
	b.t.Helper()
	if _, err := b.send(step, &nodelink.WriteSeed{Files: []nodelink.SeedFile{{Name: "user-data", Content: userData}}}); err != nil {
		b.t.Fatal(err)
	}
}

// seed gives the VM's seed, or nothing.
func (b *bench) seed() *volume.Volume {
	b.t.Helper()
	v, err := b.agent.cfg.Volumes.Inspect(b.t.Context(), b.vm)
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil || !v.ReadOnly {
		b.t.Fatalf("%+v, %v", v, err)
	}
	return &v
}

// next is the next operation about the VM, and its next incarnation.
func (b *bench) next() {
	b.head.Operation, b.head.OpSeq, b.head.OwnerEpoch = id.New(), b.head.OpSeq+1, b.head.OwnerEpoch+1
}

func (b *bench) launchSeeded(seed bool) {
	b.t.Helper()
	c := b.launchCommand()
	c.Machine.Seed = seed
	if _, err := b.send("launch", c); err != nil {
		b.t.Fatal(err)
	}
}

// A seed is made beside the disks, stays over reboots of the host without anybody
// telling what is in it, goes when the VM has none any more, and with the VM.
func TestSeed(t *testing.T) {
	b := newBench(t)
	if _, err := b.send("make disks", &nodelink.CreateVolumes{Volumes: []nodelink.VolumeSpec{{ID: b.volume, SizeBytes: 1 << 20}}}); err != nil {
		t.Fatal(err)
	}
	b.writeSeed("seed", "one")
	b.launchSeeded(true)
	if b.seed() == nil {
		t.Fatal("there is no seed")
	}
	b.boot = "boot-2"
	b.host.PowerLoss()
	b.restart()
	if b.executing() != 1 || b.seed() == nil {
		t.Errorf("after a reboot %d run, the seed is %+v", b.executing(), b.seed())
	}
	b.next()
	b.launchSeeded(false)
	if s := b.seed(); s != nil {
		t.Errorf("a VM without one has the seed %+v", s)
	}
	b.next()
	b.writeSeed("seed", "two")
	if _, err := b.send("power off", &nodelink.PowerOff{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.send("erase", &nodelink.Erase{Volumes: []id.ID{b.volume}}); err != nil {
		t.Fatal(err)
	}
	if s := b.seed(); s != nil {
		t.Errorf("the VM is gone and its seed is not: %+v", s)
	}
}

// A machine that should have a seed does not start without one.
func TestSeedIsMissing(t *testing.T) {
	b := newBench(t)
	c := b.launchCommand()
	c.Machine.Seed, c.Machine.Volumes = true, nil
	if _, err := b.send("launch", c); !errs.Is(err, errs.NotFound) || b.executing() != 0 {
		t.Errorf("%v, %d run", err, b.executing())
	}
	if _, err := b.send("seed", &nodelink.WriteSeed{Files: []nodelink.SeedFile{{Name: "../x"}}}); !errs.Is(err, errs.InvalidField) || b.seed() != nil {
		t.Errorf("a name that leads away: %v, %+v", err, b.seed())
	}
}
