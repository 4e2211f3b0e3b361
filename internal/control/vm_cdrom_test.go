package control_test

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/job"
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
		return c.Service.AttachCD(t.Context(), controltest.Admin(), "a", control.AttachCD{Image: cd})
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
	_, err = eject(false)
	drive(t, c, err)
	if got := inDrive(t, c, "a"); got != "" {
		t.Errorf("ejected while it is paused: %q", got)
	}
	_, err = attach("disc")
	drive(t, c, err)
	if got := inDrive(t, c, "a"); got != disc || vm.Appear(view(t, c, "a")).State != vm.Paused {
		t.Errorf("attached while it is paused: %q", got)
	}
	request(t, c, "a", vm.Resume)
	request(t, c, "a", vm.Suspend)
	if _, err := eject(true); !errs.Is(err, errs.InvalidState) || !strings.Contains(err.Error(), "resume it first") {
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

// A CD is exchanged for another in one step, where that is asked for: under a guest that
// runs, that is paused, and at rest. What a guest keeps it keeps, by the record too, until
// it is forced, which a paused one cannot be asked before.
func TestCDIsReplaced(t *testing.T) {
	c := controltest.New(t, 1)
	sums := map[string]string{}
	for _, name := range []string{"disc", "other"} {
		sums[name] = addCD(t, c, name)
	}
	n := c.NewVM("a", true)
	n.CDROM = "disc"
	make1(t, c, n)
	replace := func(cd string, force bool) job.Job {
		t.Helper()
		a, err := c.Service.AttachCD(t.Context(), controltest.Admin(), "a", control.AttachCD{Image: cd, Replace: true, Force: force})
		if a.Job == nil {
			drive(t, c, err)
			return job.Job{}
		}
		for name := range sums { // the one that comes, and the one that may come back
			if err := imageDelete(t, c, name); !errs.Is(err, errs.InUse) {
				t.Errorf("the image %s while one is exchanged for the other: %v", name, err)
			}
		}
		drive(t, c, err)
		j, err := c.Service.Job(t.Context(), *a.Job)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	has := func(when, cd string) {
		t.Helper()
		if v := view(t, c, "a"); v.Intent.CDROM == nil || v.Intent.CDROM.Name != cd || v.Job != nil || inDrive(t, c, "a") != sums[cd] {
			t.Errorf("%s: %+v on record, %q in the drive, want %s", when, v.Intent.CDROM, inDrive(t, c, "a"), cd)
		}
	}
	replace("other", false)
	has("replaced", "other")
	if j := replace("other", false); j.Kind != "" {
		t.Errorf("what is there already: %+v", j)
	}
	request(t, c, "a", vm.Pause)
	replace("disc", false)
	has("replaced while it is paused", "disc")
	c.Nodes[0].Host.(*controltest.SimHost).SetFaults(id.Nil, sim.Faults{HoldMedium: true})
	if j := replace("other", false); j.ErrorCode != string(errs.InUse) || !strings.Contains(j.ErrorMessage, "paused") {
		t.Errorf("what a paused guest has in use: %+v", j)
	}
	has("after a paused guest kept it", "disc")
	request(t, c, "a", vm.Resume)
	if j := replace("other", false); j.ErrorCode != string(errs.InUse) {
		t.Errorf("what a guest has in use: %+v", j)
	}
	has("after a guest kept it", "disc")
	replace("other", true)
	has("by force", "other")
	drive(t, c, imageDelete(t, c, "disc"))
	request(t, c, "a", vm.Stop)
	addCD(t, c, "third")
	replace("third", false)
	if cd := view(t, c, "a").Intent.CDROM; cd == nil || cd.Name != "third" {
		t.Errorf("at rest: %+v", cd)
	}
	drive(t, c, imageDelete(t, c, "other"))
}

func imageDelete(t *testing.T, c *controltest.Cluster, name string) error {
	t.Helper()
	_, err := c.Service.DeleteImage(t.Context(), controltest.Admin(), name)
	return err
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
