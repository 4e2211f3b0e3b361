package control_test

import (
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// A disk of a VM that rests becomes an image; both are held for as long, and the VM
// is as it was.
func TestCaptureDisk(t *testing.T) {
	c := controltest.New(t, 1)
	make1(t, c, c.NewVM("a", true))
	for _, name := range []string{"i", "k"} {
		if _, err := c.Service.CreateImage(t.Context(), controltest.Admin(), name, image.Disk, ""); err != nil {
			t.Fatal(err)
		}
	}
	capture := func(name, disk string) (control.Accepted, error) {
		return c.Service.CaptureDisk(t.Context(), controltest.Admin(), name, "a", disk)
	}
	if _, err := capture("i", "1"); !errs.Is(err, errs.InvalidState) {
		t.Errorf("while it runs: %v", err)
	}
	request(t, c, "a", vm.Stop)
	if _, err := capture("i", "7"); !errs.Is(err, errs.NotFound) {
		t.Errorf("a disk that is not: %v", err)
	}
	if _, err := capture("tiny", "1"); !errs.Is(err, errs.InvalidState) {
		t.Errorf("into a ready image: %v", err)
	}
	if a, err := capture("i", "1"); err != nil || a.Job == nil {
		t.Fatal(err)
	}
	if _, err := capture("k", "1"); !errs.Is(err, errs.VMBusy) {
		t.Errorf("twice at once: %v", err)
	}
	if _, err := c.Service.DeleteImage(t.Context(), controltest.Admin(), "i"); !errs.Is(err, errs.Conflict) {
		t.Errorf("deleted meanwhile: %v", err)
	}
	drive(t, c, nil)
	i := imageIs(t, c, "i")
	if i.State != image.Ready || i.Files[0].Format != "qcow2" || i.Files[0].VirtualBytes != 64*unit.MiB {
		t.Errorf("%+v", i)
	}
	clean(t, c)
	request(t, c, "a", vm.Start)
}

// A capture that is cancelled leaves nothing.
func TestCaptureIsCancelled(t *testing.T) {
	c := controltest.New(t, 1)
	make1(t, c, c.NewVM("a", false))
	if _, err := c.Service.CreateImage(t.Context(), controltest.Admin(), "i", image.Disk, ""); err != nil {
		t.Fatal(err)
	}
	a, err := c.Service.CaptureDisk(t.Context(), controltest.Admin(), "i", "a", "0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Service.CancelJob(t.Context(), controltest.Admin(), *a.Job); err != nil {
		t.Fatal(err)
	}
	drive(t, c, nil)
	if j := ended(t, c, *a.Job); j.State != job.Cancelled {
		t.Errorf("%+v", j)
	}
	if i := imageIs(t, c, "i"); i.State != image.Uploading || i.JobID != nil {
		t.Errorf("%+v", i)
	}
	if v := view(t, c, "a"); v.Job != nil {
		t.Errorf("the VM is still held: %+v", v.Job)
	}
	clean(t, c)
}
