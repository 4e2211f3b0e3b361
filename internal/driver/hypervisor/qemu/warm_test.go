package qemu_test

import (
	"bytes"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// The way to the target breaks in the middle of the first round, and again in a later one: the
// rounds go on with what they lack, and no more. What the guest writes between two rounds comes
// with the next, and at the end the disk is the same on both hosts, byte for byte.
func TestRoundsGoOnAfterACut(t *testing.T) {
	near, far := newHarness(t, nil), newHarness(t, nil)
	m, _ := near.witness(t)
	const size = 16 << 20
	if err := os.Truncate(m.Disks[0].File.Path, size); err != nil {
		t.Fatal(err)
	}
	pattern(t, m.Disks[0].File.Path, 1<<20, size-1<<20)
	near.launch(t, m)
	near.readLog(t, m, "guest ready")
	j := near.departs(t, far, m, contract.MoveOptions{Warm: true, Interval: 100 * time.Millisecond, BytesPerSecond: 20 * unit.MiB})
	j.wire.CutAfter(6 << 20)
	ctx := hypertest.Context(t)
	var writes, again, over sync.Once
	wrote := make(chan struct{})
	var first, atCut int64
	err := j.send(ctx, func(p contract.Progress) {
		w := p.Warm
		switch {
		case w == nil:
		case w.Cut:
			if w.Cuts == 1 {
				atCut = p.DisksMoved
			}
			j.wire.Mend()
		case w.Rounds == 1:
			first = p.DisksMoved
		case w.Rounds >= 2 && w.Cuts == 1:
			writes.Do(func() {
				go func() {
					defer close(wrote)
					near.counts(t, m, 1)
				}()
			})
			select {
			case <-wrote:
				again.Do(j.wire.Snap)
			default:
			}
		case w.Rounds >= 4 && w.Cuts >= 2:
			over.Do(func() {
				go func() {
					if err := near.driver.Cutover(ctx, m.Ref); err != nil {
						t.Error(err)
					}
				}()
			})
		}
	})
	if err != nil {
		t.Fatalf("%v at %+v %+v", err, j.last, j.last.Warm)
	}
	t.Logf("%d bytes before the cut, %d in the first round, %+v %+v", atCut, first, j.last, j.last.Warm)
	if atCut == 0 || atCut > 8<<20 || first > size+2<<20 {
		t.Errorf("the first round took %d bytes, and was cut after %d", first, atCut)
	}
	if _, err := far.driver.Arrived(ctx, j.to.Ref); err != nil {
		t.Fatal(err)
	}
	here, err := os.ReadFile(m.Disks[0].File.Path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := far.driver.Resume(ctx, j.to.Ref); err != nil {
		t.Fatal(err)
	}
	there, err := os.ReadFile(j.to.Disks[0].File.Path)
	if err != nil || !bytes.Equal(here, there) {
		t.Errorf("the disks differ, %v", err)
	}
	if _, err := near.driver.Kill(ctx, m.Ref); err != nil {
		t.Fatal(err)
	}
	if err := near.driver.Release(ctx, m.VM); err != nil {
		t.Fatal(err)
	}
	far.counts(t, j.to, 2)
	if left := near.Leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
