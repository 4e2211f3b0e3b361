package vm

import (
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func TestDisks(t *testing.T) {
	image, other := id.New(), id.New()
	v := View{Intent: Intent{Name: "web", ImageID: &image}, Volumes: []Volume{
		{ID: id.New(), Slot: 0, SizeBytes: unit.GiB, ImageID: &image},
		{ID: id.New(), Slot: 2, SizeBytes: unit.GiB, ImageID: &image},
		{ID: id.New(), Slot: 5, SizeBytes: unit.GiB, ImageID: &other},
	}}
	for i, boots := range []bool{true, false, false} {
		if v.Boots(v.Volumes[i]) != boots {
			t.Errorf("disk %d boots: %v", i, !boots)
		}
	}
	if slot, err := v.FreeSlot(); slot != 6 || err != nil {
		t.Errorf("%d %v", slot, err)
	}
	for _, ref := range []string{"2", v.Volumes[1].ID.String()} {
		if d, err := v.Disk(ref); err != nil || d.ID != v.Volumes[1].ID {
			t.Errorf("%s: %+v %v", ref, d, err)
		}
	}
	for _, ref := range []string{"1", "02", "-0", "", "vdb", id.New().String()} {
		if d, err := v.Disk(ref); !errs.Is(err, errs.NotFound) {
			t.Errorf("%q is %+v, %v", ref, d, err)
		}
	}
	for size, want := range map[int64]bool{unit.GiB: false, 2 * unit.GiB: true} {
		if grows, err := v.Grows(v.Volumes[0], size); grows != want || err != nil {
			t.Errorf("%d: %v %v", size, grows, err)
		}
	}
	if _, err := v.Grows(v.Volumes[0], unit.GiB-512); !errs.Is(err, errs.ShrinkNotAllowed) || errs.As(err).Fields[0].Pointer != "/size_bytes" {
		t.Error(err)
	}
	for len(v.Volumes) < MaxDisks {
		v.Volumes = append(v.Volumes, Volume{})
	}
	if _, err := v.FreeSlot(); !errs.Is(err, errs.OutOfRange) {
		t.Error(err)
	}
}

func TestDiskSpec(t *testing.T) {
	for _, good := range []DiskSpec{{SizeBytes: unit.MiB}, {SizeBytes: MaxDisk}, {Image: "data"}, {Image: "data", SizeBytes: unit.GiB}} {
		if err := good.Validate(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for _, bad := range []DiskSpec{{}, {SizeBytes: -unit.GiB}, {SizeBytes: unit.GiB + 1}, {SizeBytes: unit.PiB}, {Image: "data", SizeBytes: 1}} {
		if err := bad.Validate(); !errs.Is(err, errs.OutOfRange) || errs.As(err).Fields[0].Pointer != "/size_bytes" {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
