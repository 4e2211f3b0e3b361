package control_test

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func clone(t *testing.T, c *controltest.Cluster, name, as string) (control.Accepted, error) {
	t.Helper()
	return c.Service.CloneVM(t.Context(), controltest.Admin(), name, as, nil)
}

// A clone has everything of its own, and both run.
func TestClone(t *testing.T) {
	c := controltest.New(t, 2)
	n := c.NewVM("a", true)
	n.Labels = map[string]string{"tier": "web"}
	n.NICs = []vm.NICSpec{{Forwards: []vm.Forward{{Protocol: "tcp", HostPort: 8080, GuestPort: 80}}}}
	make1(t, c, n)
	if _, err := clone(t, c, "a", "b"); !errs.Is(err, errs.InvalidState) || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("while it runs: %v", err)
	}
	request(t, c, "a", vm.Stop)
	if _, err := clone(t, c, "a", "a"); !errs.Is(err, errs.AlreadyExists) {
		t.Errorf("under its own name: %v", err)
	}
	_, err := clone(t, c, "a", "b")
	drive(t, c, err)
	a, b := view(t, c, "a"), view(t, c, "b")
	if b.Intent.ID == a.Intent.ID || *b.Intent.NodeID != *a.Intent.NodeID || b.Intent.Labels["tier"] != "web" || b.Intent.CPUs != a.Intent.CPUs ||
		a.Job != nil || b.Job != nil || len(b.Volumes) != 2 || len(b.NICs) != 1 {
		t.Fatalf("%+v\n%+v", a, b)
	}
	for i := range a.Volumes {
		if a.Volumes[i].ID == b.Volumes[i].ID || a.Volumes[i].SizeBytes != b.Volumes[i].SizeBytes {
			t.Errorf("disk %d: %+v and %+v", i, a.Volumes[i], b.Volumes[i])
		}
	}
	if !b.Boots(b.Volumes[0]) || a.NICs[0].MAC == b.NICs[0].MAC || len(b.NICs[0].Forwards) != 0 {
		t.Errorf("%+v and %+v", a.NICs, b.NICs)
	}
	request(t, c, "a", vm.Start)
	request(t, c, "b", vm.Start)
	if len(c.Running()) != 2 {
		t.Errorf("run %v", c.Running())
	}
	request(t, c, "a", vm.Delete)
	request(t, c, "b", vm.Delete)
	clean(t, c)
}

// While a clone is made, it is being made and its original is stopped, and held by
// the job. To delete the clone is to cancel the job, which leaves the original as
// it was.
func TestCloneHoldsItsOriginal(t *testing.T) {
	c := controltest.New(t, 1)
	make1(t, c, c.NewVM("a", false))
	before := usedDisk(t, c)
	c.Nodes[0].SetDown(true)
	execute(t, c)
	made, err := clone(t, c, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it waits for n1", func() bool {
		j, err := c.Service.Job(t.Context(), *made.Job)
		return err == nil && strings.Contains(j.WaitReason, "n1 does not report")
	})
	a, b := vm.Appear(view(t, c, "a")), vm.Appear(view(t, c, "b"))
	if a.State != vm.Stopped || b.State != vm.Provisioning {
		t.Errorf("the original is %s, the clone %s", a.State, b.State)
	}
	for _, r := range []vm.Request{vm.Start, vm.Delete} {
		if _, err := c.Service.AskVM(t.Context(), controltest.Admin(), "a", r, control.Stop{}); !errs.Is(err, errs.VMBusy) || errs.As(err).Job != made.Job.String() {
			t.Errorf("%s the original: %v", r, err)
		}
	}
	gone, err := c.Service.AskVM(t.Context(), controltest.Admin(), "b", vm.Delete, control.Stop{})
	if err != nil || gone.Job == nil || *gone.Job != *made.Job {
		t.Fatalf("delete the clone: %+v %v", gone, err)
	}
	until(t, "it is cancelled", func() bool {
		j, err := c.Service.Job(t.Context(), *made.Job)
		return err == nil && j.State == job.Cancelled
	})
	if v := view(t, c, "a"); v.Job != nil || usedDisk(t, c) != before {
		t.Errorf("%+v, %d bytes counted and %d before", v, usedDisk(t, c), before)
	}
	if _, err := c.Service.VM(t.Context(), "b"); !errs.Is(err, errs.NotFound) {
		t.Errorf("the clone: %v", err)
	}
	c.Nodes[0].SetDown(false)
	if _, err := c.Service.SetNode(t.Context(), controltest.Admin(), "n1", node.Cordoned, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := clone(t, c, "a", "b"); !errs.Is(err, errs.NoNodeFits) || !strings.Contains(err.Error(), "n1 is cordoned") {
		t.Errorf("on a cordoned node: %v", err)
	}
	clean(t, c)
}
