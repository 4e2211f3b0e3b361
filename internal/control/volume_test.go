package control_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func view(t *testing.T, c *controltest.Cluster, name string) vm.View {
	t.Helper()
	v, err := c.Service.VM(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func add(t *testing.T, c *controltest.Cluster, name string, d vm.DiskSpec) error {
	t.Helper()
	_, err := c.Service.AddDisk(t.Context(), controltest.Admin(), name, d)
	return err
}

func usedDisk(t *testing.T, c *controltest.Cluster) int64 {
	t.Helper()
	n, err := c.Service.Node(t.Context(), "n1")
	if err != nil {
		t.Fatal(err)
	}
	return n.Used.DiskBytes
}

// A disk is added to a VM at rest, is there when it runs, grows while it runs, and
// goes again; the node's count follows.
func TestDisksComeGrowAndGo(t *testing.T) {
	c := controltest.New(t, 1)
	make1(t, c, c.NewVM("a", true))
	before := usedDisk(t, c)
	if err := add(t, c, "a", vm.DiskSpec{SizeBytes: unit.GiB}); !errs.Is(err, errs.InvalidState) || !strings.Contains(err.Error(), "cannot add a disk to VM \"a\": it is running; stop it first") {
		t.Errorf("while it runs: %v", err)
	}
	request(t, c, "a", vm.Stop)
	drive(t, c, add(t, c, "a", vm.DiskSpec{SizeBytes: unit.GiB}))
	drive(t, c, add(t, c, "a", vm.DiskSpec{Image: "tiny"}))
	v := view(t, c, "a")
	if len(v.Volumes) != 4 || v.Volumes[2].Slot != 2 || v.Volumes[3].SizeBytes != unit.GiB || v.Volumes[3].ImageName != "tiny" {
		t.Fatalf("%+v", v.Volumes)
	}
	request(t, c, "a", vm.Start)
	grow := func(disk string, size int64) (control.Accepted, error) {
		return c.Service.GrowDisk(t.Context(), controltest.Admin(), "a", disk, size)
	}
	a, err := grow("2", 3*unit.GiB)
	drive(t, c, err)
	if j, err := c.Service.Job(t.Context(), *a.Job); err != nil || j.State != job.Succeeded {
		t.Errorf("%+v %v", j, err)
	}
	if a, err := grow(v.Volumes[2].ID.String(), 3*unit.GiB); err != nil || a.Job != nil {
		t.Errorf("to the size it has: %+v %v", a, err)
	}
	if _, err := grow("2", 2*unit.GiB); !errs.Is(err, errs.ShrinkNotAllowed) {
		t.Errorf("smaller: %v", err)
	}
	if _, err := grow("9", 9*unit.GiB); !errs.Is(err, errs.NotFound) {
		t.Errorf("no such disk: %v", err)
	}
	if got := usedDisk(t, c) - before; got != 4*unit.GiB {
		t.Errorf("%d bytes more are counted", got)
	}
	request(t, c, "a", vm.Stop)
	for _, disk := range []string{"1", "2", "3"} {
		_, err := c.Service.RemoveDisk(t.Context(), controltest.Admin(), "a", disk)
		drive(t, c, err)
	}
	if _, err := c.Service.RemoveDisk(t.Context(), controltest.Admin(), "a", "0"); !errs.Is(err, errs.InvalidState) || !strings.Contains(err.Error(), "delete the VM instead") {
		t.Errorf("the disk it starts from: %v", err)
	}
	a, err = grow("0", 5*unit.GiB)
	drive(t, c, err)
	if v := view(t, c, "a"); len(v.Volumes) != 1 || v.Volumes[0].SizeBytes != 5*unit.GiB || a.Job == nil {
		t.Errorf("%+v", v.Volumes)
	}
	request(t, c, "a", vm.Start)
	request(t, c, "a", vm.Delete)
	clean(t, c)
}

// Of disks that race for the last space, exactly those that fit are made; the
// others are refused with the numbers and leave nothing.
func TestDisksRaceForSpace(t *testing.T) {
	c := controltest.New(t, 1)
	const n = 8
	for i := range n {
		make1(t, c, c.NewVM(fmt.Sprint("vm-", i), false))
	}
	free := unit.TiB - usedDisk(t, c)
	each := free / 3 / 512 * 512
	var mu sync.Mutex
	var won int
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			err := add(t, c, fmt.Sprint("vm-", i), vm.DiskSpec{SizeBytes: each})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errs.Is(err, errs.NoNodeFits) || !strings.Contains(err.Error(), "disk free of 1 TiB") {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 3 {
		t.Errorf("%d disks of a third of the space were accepted", won)
	}
	drive(t, c, nil)
	clean(t, c)
	if _, err := c.Service.GrowDisk(t.Context(), controltest.Admin(), "vm-0", "0", 512*unit.GiB); !errs.Is(err, errs.NoNodeFits) {
		t.Errorf("growing beyond what is left: %v", err)
	}
	if v := view(t, c, "vm-0"); v.Volumes[0].SizeBytes != unit.GiB || v.Job != nil {
		t.Errorf("the refused request left %+v", v)
	}
}

// An image that any disk was made from stays, and says whose; it goes when the
// disk has gone.
func TestImagesOfDisksStay(t *testing.T) {
	c := controltest.New(t, 1)
	n := c.NewVM("a", false)
	n.Disks = append(n.Disks, vm.DiskSpec{Image: "tiny", SizeBytes: 2 * unit.GiB})
	make1(t, c, n)
	v := view(t, c, "a")
	if d := v.Volumes[2]; d.ImageName != "tiny" || d.SizeBytes != 2*unit.GiB || v.Boots(d) {
		t.Errorf("%+v", d)
	}
	if _, err := c.Service.DeleteImage(t.Context(), controltest.Admin(), "tiny"); !errs.Is(err, errs.InUse) || errs.As(err).Blockers[0] != "a" {
		t.Errorf("%v", err)
	}
	for what, d := range map[string]vm.DiskSpec{"smaller than the image": {Image: "tiny", SizeBytes: unit.MiB}, "no such image": {Image: "none-such"}} {
		if err := add(t, c, "a", d); !errs.Is(err, errs.InvalidSize) && !errs.Is(err, errs.NotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	first := c.NewVM("b", false)
	first.Disks[0].Image = "tiny"
	if _, err := c.Service.CreateVM(t.Context(), controltest.Admin(), first); !errs.Is(err, errs.InvalidField) || errs.As(err).Fields[0].Pointer != "/disks/0/image" {
		t.Errorf("the first disk from an image of its own: %v", err)
	}
}

// A disk for a VM whose node is away waits and says so; cancelled, it leaves
// nothing, and the VM is as it was.
func TestDiskWaitsForItsNode(t *testing.T) {
	c := controltest.New(t, 1)
	make1(t, c, c.NewVM("a", false))
	before := usedDisk(t, c)
	c.Nodes[0].SetDown(true)
	execute(t, c)
	for _, ask := range []func() (control.Accepted, error){
		func() (control.Accepted, error) {
			return c.Service.AddDisk(t.Context(), controltest.Admin(), "a", vm.DiskSpec{SizeBytes: unit.GiB})
		},
		func() (control.Accepted, error) {
			return c.Service.GrowDisk(t.Context(), controltest.Admin(), "a", "0", 2*unit.GiB)
		},
		func() (control.Accepted, error) {
			return c.Service.RemoveDisk(t.Context(), controltest.Admin(), "a", "1")
		},
	} {
		a, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		until(t, "it waits for n1", func() bool {
			j, err := c.Service.Job(t.Context(), *a.Job)
			return err == nil && j.State == job.Waiting && strings.Contains(j.WaitReason, "n1 does not report")
		})
		if _, err := c.Service.CancelJob(t.Context(), controltest.Admin(), *a.Job); err != nil {
			t.Fatal(err)
		}
		until(t, "it is cancelled", func() bool {
			j, err := c.Service.Job(t.Context(), *a.Job)
			return err == nil && j.State == job.Cancelled
		})
	}
	v := view(t, c, "a")
	if len(v.Volumes) != 2 || v.Volumes[0].SizeBytes != unit.GiB || v.Job != nil || vm.Appear(v).State != vm.Stopped || usedDisk(t, c) != before {
		t.Errorf("%+v, %d bytes counted and %d before", v, usedDisk(t, c), before)
	}
	c.Nodes[0].SetDown(false)
	clean(t, c)
}
