package control_test

import (
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/sim"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// inDrive is what the simulated host of a VM has in its drive.
func inDrive(t *testing.T, c *controltest.Cluster, name string) string {
	t.Helper()
	got, live := c.Nodes[0].Host.(*controltest.SimHost).Medium(view(t, c, name).Intent.ID)
	if !live {
		t.Fatalf("VM %s does not run", name)
	}
	return got
}

func addCD(t *testing.T, c *controltest.Cluster, name string) string {
	t.Helper()
	sum, err := c.AddCD(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// What a drive has in it stays over reboots that no control plane sees, stops and
// starts; an image in a drive is not deleted; and a drive is not taken from whoever put
// something in.
func TestCDStaysUntilItIsEjected(t *testing.T) {
	c := controltest.New(t, 1)
	disc, other := addCD(t, c, "disc"), addCD(t, c, "other")
	make1(t, c, c.NewVM("a", true))
	attach := func(cd string) (control.Accepted, error) {
		return c.Service.AttachCD(t.Context(), controltest.Admin(), "a", cd)
	}
	eject := func(force bool) (control.Accepted, error) {
		return c.Service.EjectCD(t.Context(), controltest.Admin(), "a", force)
	}
	a, err := attach("disc")
	if a.Job == nil {
		t.Fatalf("no job: %v", err)
	}
	if _, err := eject(false); !errs.Is(err, errs.VMBusy) {
		t.Errorf("while its job goes on: %v", err)
	}
	drive(t, c, err)
	if got := inDrive(t, c, "a"); got != disc {
		t.Errorf("the drive has %q", got)
	}
	if a, err := attach("disc"); err != nil || a.Job != nil {
		t.Errorf("what it has: %+v %v", a, err)
	}
	if _, err := attach("other"); !errs.Is(err, errs.InUse) {
		t.Errorf("over another: %v", err)
	}
	if _, err := attach("tiny"); !errs.Is(err, errs.InvalidField) {
		t.Errorf("no CD: %v", err)
	}
	if _, err := c.Service.DeleteImage(t.Context(), controltest.Admin(), "disc"); !errs.Is(err, errs.InUse) {
		t.Errorf("an image in a drive: %v", err)
	}
	if err := c.Nodes[0].Reboot(t.Context()); err != nil || inDrive(t, c, "a") != disc {
		t.Errorf("after a reboot: %q %v", inDrive(t, c, "a"), err)
	}
	request(t, c, "a", vm.Pause)
	if _, err := eject(true); !errs.Is(err, errs.InvalidState) {
		t.Errorf("while it is paused: %v", err)
	}
	request(t, c, "a", vm.Resume)
	request(t, c, "a", vm.Suspend)
	if _, err := eject(true); !errs.Is(err, errs.InvalidState) {
		t.Errorf("while it is suspended: %v", err)
	}
	request(t, c, "a", vm.Resume)
	if got := inDrive(t, c, "a"); got != disc {
		t.Errorf("after a suspend the drive has %q", got)
	}
	request(t, c, "a", vm.Stop)
	if a, err := eject(false); err != nil || a.Job != nil || view(t, c, "a").Intent.CDROM != nil {
		t.Errorf("at rest: %+v %v", a, err)
	}
	if a, err := attach("other"); err != nil || a.Job != nil {
		t.Errorf("at rest: %+v %v", a, err)
	}
	request(t, c, "a", vm.Start)
	if got := inDrive(t, c, "a"); got != other {
		t.Errorf("started with %q", got)
	}
	_, err = eject(false)
	drive(t, c, err)
	if a, err := eject(true); err != nil || a.Job != nil || inDrive(t, c, "a") != "" {
		t.Errorf("what is empty: %+v %v", a, err)
	}
	_, err = c.Service.DeleteImage(t.Context(), controltest.Admin(), "disc")
	drive(t, c, err)
}

// A guest that keeps its CD keeps it by the record too, until it is forced.
func TestCDThatTheGuestKeeps(t *testing.T) {
	c := controltest.New(t, 1)
	disc := addCD(t, c, "disc")
	n := c.NewVM("a", true)
	n.CDROM = "disc"
	make1(t, c, n)
	if got := inDrive(t, c, "a"); got != disc {
		t.Errorf("made with %q", got)
	}
	c.Nodes[0].Host.(*controltest.SimHost).SetFaults(id.Nil, sim.Faults{HoldMedium: true})
	a, err := c.Service.EjectCD(t.Context(), controltest.Admin(), "a", false)
	drive(t, c, err)
	j, err := c.Service.Job(t.Context(), *a.Job)
	if err != nil || j.ErrorCode != string(errs.InUse) {
		t.Errorf("%+v %v", j, err)
	}
	if v := view(t, c, "a"); v.Intent.CDROM == nil || v.Intent.CDROM.Name != "disc" || v.Job != nil || inDrive(t, c, "a") != disc {
		t.Errorf("after a guest kept it: %+v", v.Intent.CDROM)
	}
	_, err = c.Service.EjectCD(t.Context(), controltest.Admin(), "a", true)
	drive(t, c, err)
	if v := view(t, c, "a"); v.Intent.CDROM != nil || inDrive(t, c, "a") != "" {
		t.Errorf("by force: %+v", v.Intent.CDROM)
	}
}
