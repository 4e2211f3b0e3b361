package control_test

import (
	"bytes"
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/image/inspect"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// put makes an image and gives it a file at once.
func put(t *testing.T, c *controltest.Cluster, name string, b []byte) image.Image {
	t.Helper()
	if _, err := c.Service.CreateImage(t.Context(), controltest.Admin(), name, image.Disk, ""); err != nil {
		t.Fatal(err)
	}
	i, err := c.Service.PutImageFile(t.Context(), controltest.Admin(), name, image.RoleDisk, "", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func imageIs(t *testing.T, c *controltest.Cluster, name string) image.Image {
	t.Helper()
	i, err := c.Service.Image(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// A disk in another program's format is held by a job, and then is a qcow2 that says
// what it was made from; equal disks become equal files, whatever else uses them.
func TestForeignDiskIsConverted(t *testing.T) {
	c := controltest.New(t, 1)
	disk := controltest.VHD("content")
	for _, name := range []string{"a", "b"} {
		i := put(t, c, name, disk)
		if i.State != image.Uploading || i.JobID == nil || len(i.Files) > 0 {
			t.Fatalf("%+v", i)
		}
		if _, err := c.Service.DeleteImage(t.Context(), controltest.Admin(), name); !errs.Is(err, errs.Conflict) || errs.As(err).Job == "" {
			t.Errorf("deleted meanwhile: %v", err)
		}
		_, err := c.Service.PutImageFile(t.Context(), controltest.Admin(), name, image.RoleDisk, "", bytes.NewReader(disk))
		if !errs.Is(err, errs.Conflict) || errs.As(err).Job == "" {
			t.Errorf("sent again meanwhile: %v", err)
		}
	}
	drive(t, c, nil)
	a, b := imageIs(t, c, "a"), imageIs(t, c, "b")
	f, _ := a.File(image.RoleDisk)
	if a.State != image.Ready || b.State != image.Ready || f.Format != "qcow2" || f.VirtualBytes != 256<<10 || f.Source == nil || f.Source.Format != "vhd" || b.Files[0].SHA256 != f.SHA256 {
		t.Fatalf("%+v %+v", a, b)
	}
	clean(t, c)
	content, err := c.Images.Open(f.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if is, err := inspect.File(content, f.SizeBytes, image.RoleDisk); err != nil || is.Format != "qcow2" || is.VirtualBytes != f.VirtualBytes {
		t.Errorf("%+v %v", is, err)
	}
}

// A disk whose headers are good and whose tables are not fails in its job, and the
// image waits for another, with nothing left over.
func TestForeignDiskThatIsDamaged(t *testing.T) {
	c := controltest.New(t, 1)
	i := put(t, c, "a", controltest.BrokenVDI())
	drive(t, c, nil)
	j, err := c.Service.Job(t.Context(), *i.JobID)
	if err != nil || j.State != job.Failed || j.ErrorCode != string(errs.InvalidImage) {
		t.Fatalf("%+v %v", j, err)
	}
	if i := imageIs(t, c, "a"); i.State != image.Uploading || i.JobID != nil || len(i.Files) > 0 {
		t.Errorf("%+v", i)
	}
	clean(t, c)
	if _, err := c.Service.PutImageFile(t.Context(), controltest.Admin(), "a", image.RoleDisk, "", bytes.NewReader(controltest.VHD("good"))); err != nil {
		t.Fatal(err)
	}
	drive(t, c, nil)
	if i := imageIs(t, c, "a"); i.State != image.Ready {
		t.Errorf("%+v", i)
	}
}

// What comes in parts is converted too, and a conversion that is cancelled leaves an
// image that waits.
func TestConversionIsCancelled(t *testing.T) {
	c := controltest.New(t, 1)
	if _, err := c.Service.CreateImage(t.Context(), controltest.Admin(), "a", image.Disk, ""); err != nil {
		t.Fatal(err)
	}
	disk := controltest.VHD("content")
	u, err := c.Service.BeginUpload(t.Context(), controltest.Admin(), "a", image.RoleDisk, int64(len(disk)), "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Service.WriteUpload(t.Context(), controltest.Admin(), "a", u.ID.String(), control.Piece{
		Part: image.Part{Length: int64(len(disk)), Last: true}, Body: bytes.NewReader(disk), Break: func() {},
	})
	if err != nil {
		t.Fatal(err)
	}
	i := imageIs(t, c, "a")
	if i.JobID == nil {
		t.Fatalf("%+v", i)
	}
	if _, err := c.Service.CancelJob(t.Context(), controltest.Admin(), *i.JobID); err != nil {
		t.Fatal(err)
	}
	drive(t, c, nil)
	j, err := c.Service.Job(t.Context(), *i.JobID)
	if err != nil || j.State != job.Cancelled {
		t.Fatalf("%+v %v", j, err)
	}
	if i := imageIs(t, c, "a"); i.State != image.Uploading || i.JobID != nil {
		t.Errorf("%+v", i)
	}
	clean(t, c)
}
