package vm

import (
	"strconv"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Validate checks a disk that is to be added by itself.
func (d DiskSpec) Validate() error {
	v := validation{}
	v.disk("", d)
	return v.err()
}

// disk checks a wanted disk. One made from an image may leave its size to it; so may one of
// which no more is said than its pool, which the VM's own image may be in.
func (v *validation) disk(at string, d DiskSpec) {
	v.diskLimits(at+"/limits", d.Limits)
	if d.SizeBytes == 0 && (d.Image != "" || d.Pool != "") {
		return
	}
	at += "/size_bytes"
	v.between(at, d.SizeBytes, MinDisk, MaxDisk, unit.FormatBytes)
	v.multiple(at, d.SizeBytes, DiskGrain)
}

// Disk finds a disk by its id or its slot.
func (v View) Disk(ref string) (Volume, error) {
	for _, d := range v.Volumes {
		if ref == d.ID.String() || ref == strconv.Itoa(d.Slot) {
			return d, nil
		}
	}
	return Volume{}, errs.New(errs.NotFound, "VM %q has no disk %q: name one by its id or its slot", v.Intent.Name, errs.Clip(ref))
}

// Boots tells whether a disk is the one the VM was made from: without it there
// is no VM.
func (v View) Boots(d Volume) bool {
	return d.Slot == 0 && d.ImageID != nil && v.Intent.ImageID != nil && *d.ImageID == *v.Intent.ImageID
}

// FreeSlot is where a further disk goes: behind the others, so that none of them
// gets another name in the guest.
func (v View) FreeSlot() (int, error) {
	if v.Intent.Hardware.Type == MachineMicro && len(v.Volumes)+len(v.NICs) >= MicroSlots {
		return 0, errs.New(errs.OutOfRange, "VM %q is a microvm, and has room for %d disks and network interfaces", v.Intent.Name, MicroSlots).
			At(errs.Field{Pointer: "/disks", Message: "has no place left", Limit: strconv.Itoa(MicroSlots)})
	}
	if len(v.Volumes) >= MaxDisks {
		return 0, errs.New(errs.OutOfRange, "VM %q has %d disks, and no VM has more", v.Intent.Name, MaxDisks).
			At(errs.Field{Pointer: "/disks", Message: "has no place left", Limit: strconv.Itoa(MaxDisks)})
	}
	return v.nextSlot(), nil
}

func (v View) nextSlot() int {
	slot := 0
	for _, d := range v.Volumes {
		slot = max(slot, d.Slot+1)
	}
	return slot
}

// Grows tells whether there is anything to do to give a disk a size. Smaller is
// refused: nobody could tell what would be cut off.
func (v View) Grows(d Volume, sizeBytes int64) (bool, error) {
	if sizeBytes < d.SizeBytes {
		has := unit.FormatBytes(d.SizeBytes)
		return false, errs.New(errs.ShrinkNotAllowed,
			"disk %d of VM %q has %s and cannot have %s: a disk never gets smaller, since what lies beyond would be lost",
			d.Slot, v.Intent.Name, has, unit.FormatBytes(sizeBytes)).
			At(errs.Field{Pointer: "/size_bytes", Message: "is smaller than the disk", Limit: "at least " + has, Got: plain(sizeBytes)})
	}
	return sizeBytes > d.SizeBytes, nil
}
