package control_test

import (
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// onHost is what the host of a simulated guest limits it to.
func onHost(t *testing.T, c *controltest.Cluster, name string) hypervisor.Limits {
	t.Helper()
	l, live := c.Nodes[0].Host.(interface {
		Limits(v id.ID) (hypervisor.Limits, bool)
	}).Limits(view(t, c, name).Intent.ID)
	if !live {
		t.Fatalf("VM %s does not run", name)
	}
	return l
}

// Limits reach a guest that runs at once, by a job, and one that rests at its next
// start; they are there after a reboot that no control plane has seen.
func TestLimitsReachGuests(t *testing.T) {
	c := controltest.New(t, 1)
	n := c.NewVM("a", true)
	n.Limits = vm.Limits{CPUCapPercent: 50}
	make1(t, c, n)
	if l := onHost(t, c, "a"); l.CPUCapPercent != 50 || l.CPUWeight != 0 || len(l.Disks) != 0 {
		t.Errorf("made with %+v", l)
	}
	set := func(l vm.LimitsChange) error {
		_, err := c.Service.UpdateVM(t.Context(), controltest.Admin(), "a", vm.Change{Limits: l})
		return err
	}
	limit := func(l vm.DiskLimits) (control.Accepted, error) {
		return c.Service.LimitDisk(t.Context(), controltest.Admin(), "a", "1", l)
	}
	if err := set(vm.LimitsChange{CPUWeight: new(300), CPUCapPercent: new(0)}); err != nil {
		t.Fatal(err)
	}
	if v := view(t, c, "a"); v.Job == nil || v.Job.Kind != vm.JobLimit || vm.Appear(v).State != vm.Running {
		t.Errorf("under way: %+v, appears %+v", v.Job, vm.Appear(v))
	}
	if err := set(vm.LimitsChange{CPUWeight: new(7)}); !errs.Is(err, errs.VMBusy) {
		t.Errorf("while its job goes on: %v", err)
	}
	drive(t, c, nil)
	if l := onHost(t, c, "a"); l.CPUCapPercent != 0 || l.CPUWeight != 300 {
		t.Errorf("limited to %+v", l)
	}
	if err := set(vm.LimitsChange{CPUWeight: new(300)}); err != nil || view(t, c, "a").Job != nil {
		t.Errorf("to what it is: %v", err)
	}
	a, err := limit(vm.DiskLimits{WriteIOPS: 40})
	drive(t, c, err)
	disk := view(t, c, "a").Volumes[1]
	if l := onHost(t, c, "a"); a.Job == nil || l.Disks[disk.ID].WriteIOPS != 40 || l.CPUWeight != 300 {
		t.Errorf("limited to %+v", l)
	}
	if a, err := limit(vm.DiskLimits{WriteIOPS: 40}); err != nil || a.Job != nil {
		t.Errorf("to what it is: %+v %v", a, err)
	}
	if err := c.Nodes[0].Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l := onHost(t, c, "a"); l.CPUWeight != 300 || l.Disks[disk.ID].WriteIOPS != 40 {
		t.Errorf("after a reboot: %+v", l)
	}
}

func TestLimitsOfWhatRests(t *testing.T) {
	c := controltest.New(t, 1)
	make1(t, c, c.NewVM("a", true))
	request(t, c, "a", vm.Stop)
	_, err := c.Service.UpdateVM(t.Context(), controltest.Admin(), "a", vm.Change{Limits: vm.LimitsChange{CPUCapPercent: new(25)}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.Service.LimitDisk(t.Context(), controltest.Admin(), "a", "0", vm.DiskLimits{IOPS: 9})
	if err != nil || a.Job != nil {
		t.Fatalf("%+v %v", a, err)
	}
	request(t, c, "a", vm.Start)
	v := view(t, c, "a")
	if l := onHost(t, c, "a"); l.CPUCapPercent != 25 || l.Disks[v.Volumes[0].ID].IOPS != 9 {
		t.Errorf("started with %+v", l)
	}
	if _, err := c.Service.LimitDisk(t.Context(), controltest.Admin(), "a", "0", vm.DiskLimits{IOPS: 9, ReadIOPS: 3}); !errs.Is(err, errs.InvalidField) {
		t.Errorf("a total beside a part: %v", err)
	}
	if _, err := c.Service.LimitDisk(t.Context(), controltest.Admin(), "a", "7", vm.DiskLimits{}); !errs.Is(err, errs.NotFound) {
		t.Errorf("no such disk: %v", err)
	}
}

// A node that cannot limit guests gets none that wants to be, and says so; those that
// are there are told at once.
func TestLimitsNeedANodeThatCan(t *testing.T) {
	c := controltest.New(t, 1)
	make1(t, c, c.NewVM("a", true))
	if _, err := c.DB.Owner.Exec(t.Context(), "UPDATE nodes SET inventory = inventory - 'limits'"); err != nil {
		t.Fatal(err)
	}
	_, err := c.Service.UpdateVM(t.Context(), controltest.Admin(), "a", vm.Change{Limits: vm.LimitsChange{CPUCapPercent: new(25)}})
	if !errs.Is(err, errs.Unsupported) {
		t.Errorf("of a guest that runs: %v", err)
	}
	if v := view(t, c, "a"); v.Intent.Limits.CPUCapPercent != 0 || v.Job != nil {
		t.Errorf("what was refused left %+v", v.Intent.Limits)
	}
}
