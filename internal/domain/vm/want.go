package vm

import (
	"slices"
	"strconv"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Want is a VM as somebody declares it. Nil fields are not declared: those of a
// VM that exists stay as they are.
type Want struct {
	Labels      *map[string]string
	CPUs        *int
	MemoryBytes *int64
	// Hardware: what is empty is not declared.
	Hardware Hardware
	PowerOn  *bool
	// Image is the name or id of the image it is made from.
	Image *string
	Disks *[]WantDisk
	NICs  *[]WantNIC
	// CloudInit is the whole of it.
	CloudInit *CloudInit
	// SeedImage is the name or id of a CD; empty for none.
	SeedImage *string
	// CDROM is the name or id of the CD in its drive; empty for none.
	CDROM  *string
	Policy PolicyChange
	Limits LimitsChange
}

// WantDisk is a disk as somebody declares it: the one with this id, else the one
// in this slot, else the one at this place of the list.
type WantDisk struct {
	ID string
	// Slot is nil where none is declared.
	Slot *int
	// SizeBytes may be 0: what it has, or its image's.
	SizeBytes int64
	// Image may be empty: the one it was made from, if any.
	Image string
	// Pool may be empty: the storage pool that it is in, or for a new one, its node.
	Pool string
	// Limits are all of them; nil where none are declared.
	Limits *DiskLimits
}

// WantNIC is a network interface as somebody declares it. ID and MAC, unless
// empty, are what it has already.
type WantNIC struct {
	ID, MAC  string
	Bridge   string
	Forwards []Forward
}

// notOurs refuses a declaration of what cannot be declared.
func notOurs(at, format string, args ...any) error {
	e := errs.New(errs.FieldNotWritable, format, args...)
	return e.At(errs.Field{Pointer: at, Message: "cannot be set"})
}

// New gives the spec of a VM that does not exist yet. What the server chooses for
// a new VM cannot be declared: its document was of another one.
func (w Want) New(name string) (Spec, error) {
	s := Spec{Name: name, Hardware: w.Hardware, CloudInit: w.CloudInit.OrNil(), Policy: w.Policy.Apply(Policy{}), Limits: w.Limits.Apply(Limits{})}
	set(&s.Labels, w.Labels)
	set(&s.CPUs, w.CPUs)
	set(&s.MemoryBytes, w.MemoryBytes)
	set(&s.SeedImage, w.SeedImage)
	set(&s.CDROM, w.CDROM)
	for i, d := range deref(w.Disks) {
		spec, err := d.spec(i, w.Image)
		if err != nil {
			return s, err
		}
		s.Disks = append(s.Disks, spec)
	}
	for i, n := range deref(w.NICs) {
		if n.ID != "" || n.MAC != "" {
			return s, notOurs("/nics/"+strconv.Itoa(i), "a network interface of a new VM gets its id and address from the server: leave them out")
		}
		s.NICs = append(s.NICs, NICSpec{Bridge: n.Bridge, Forwards: n.Forwards})
	}
	return s, nil
}

// spec gives the disk at a place of a new VM that is made from an image.
func (d WantDisk) spec(place int, image *string) (DiskSpec, error) {
	at := "/disks/" + strconv.Itoa(place)
	if d.ID != "" {
		return DiskSpec{}, notOurs(at+"/id", "a disk of a new VM gets its id from the server: leave it out")
	}
	if d.Slot != nil && *d.Slot != place {
		return DiskSpec{}, notOurs(at+"/slot", "the disks of a new VM are in the order of the list: disk %d is in slot %d", place, place)
	}
	if place == 0 && image != nil && d.Image == *image {
		d.Image = "" // it is made from the VM's image by itself
	}
	s := DiskSpec{SizeBytes: d.SizeBytes, Image: d.Image, Pool: d.Pool}
	set(&s.Limits, d.Limits)
	return s, nil
}

// StepKind is one kind of change on the way to what is wanted.
type StepKind string

// The kinds of steps, in the order they are made.
const (
	StepStop       StepKind = "stop"
	StepChange     StepKind = "change"
	StepGrowDisk   StepKind = "grow_disk"
	StepAddDisk    StepKind = "add_disk"
	StepRemoveDisk StepKind = "remove_disk"
	StepLimitDisk  StepKind = "limit_disk"
	StepEjectCD    StepKind = "eject_cd"
	StepAttachCD   StepKind = "attach_cd"
	StepStart      StepKind = "start"
)

// Step is one change that a use-case makes by itself.
type Step struct {
	Kind StepKind
	// At is the part of the declaration that asks for it, as a JSON pointer.
	At string
	// Change is of StepChange.
	Change Change
	// Disk is of StepGrowDisk, StepLimitDisk and StepRemoveDisk.
	Disk Volume
	// Add is of StepAddDisk, SizeBytes of StepGrowDisk.
	Add       DiskSpec
	SizeBytes int64
	// Limits is of StepLimitDisk.
	Limits DiskLimits
	// CD, by its name or id, is of StepAttachCD.
	CD string
}

// Steps tells what has to change of a VM, in order; nothing when it is as wanted.
// What can never be changed is refused. Disks that are not declared are refused
// too, unless prune says that they go with all that is on them.
func (w Want) Steps(v View, prune bool) ([]Step, error) {
	if err := w.fixed(v); err != nil {
		return nil, err
	}
	disks, err := w.diskSteps(v, prune)
	if err != nil {
		return nil, err
	}
	var steps []Step
	if w.PowerOn != nil && !*w.PowerOn && v.Intent.PowerOn {
		steps = append(steps, Step{Kind: StepStop, At: "/power"})
	}
	change := Change{Labels: w.Labels, CPUs: w.CPUs, MemoryBytes: w.MemoryBytes, Hardware: w.Hardware, CloudInit: w.CloudInit, SeedImage: w.SeedImage, Policy: w.Policy, Limits: w.Limits}
	if change.Differs(v.Intent) {
		steps = append(steps, Step{Kind: StepChange, Change: change})
	}
	steps = append(steps, disks...)
	steps = append(steps, w.cdSteps(v)...)
	if w.PowerOn != nil && *w.PowerOn && !v.Intent.PowerOn {
		steps = append(steps, Step{Kind: StepStart, At: "/power"})
	}
	return steps, nil
}

// fixed refuses what no VM changes once it is made.
func (w Want) fixed(v View) error {
	if w.Image != nil && !from(*w.Image, v.Intent.ImageID, v.Intent.ImageName) {
		return notOurs("/image", "VM %q was made from image %q, and that does not change: make another VM", v.Intent.Name, v.Intent.ImageName)
	}
	if w.NICs == nil {
		return nil
	}
	nics := *w.NICs
	if len(nics) != len(v.NICs) {
		return notOurs("/nics", "VM %q has %d network interfaces, and they cannot be changed yet", v.Intent.Name, len(v.NICs))
	}
	for i, n := range nics {
		if !n.is(v.NICs[i]) {
			return notOurs("/nics/"+strconv.Itoa(i), "network interface %d of VM %q cannot be changed yet", i, v.Intent.Name)
		}
	}
	return nil
}

// is tells whether a declaration is what there is.
func (n WantNIC) is(has NIC) bool {
	return (n.ID == "" || n.ID == has.ID.String()) && (n.MAC == "" || n.MAC == has.MAC) && n.Bridge == has.Bridge && slices.Equal(n.Forwards, has.Forwards)
}

// from tells whether a reference names an image; one that is empty means none.
func from(ref string, of *id.ID, name string) bool {
	return ref == name || (of != nil && ref == of.String())
}

// diskSteps compares disks.
func (w Want) diskSteps(v View, prune bool) ([]Step, error) {
	if w.Disks == nil {
		return nil, nil
	}
	var grow, add []Step
	kept := map[id.ID]bool{}
	next := v.nextSlot()
	for i, d := range *w.Disks {
		at := "/disks/" + strconv.Itoa(i)
		has, found, err := d.find(v, i, at)
		if err != nil {
			return nil, err
		}
		if !found {
			step, err := d.add(v, next, at)
			if err != nil {
				return nil, err
			}
			next++
			add = append(add, step)
			continue
		}
		if kept[has.ID] {
			return nil, errs.New(errs.InvalidField, "disk %d of VM %q stands twice", has.Slot, v.Intent.Name).At(errs.Field{Pointer: at, Message: "stands twice"})
		}
		kept[has.ID] = true
		step, err := d.grow(v, has, at)
		if err != nil {
			return nil, err
		}
		grow = append(grow, step...)
	}
	remove, err := v.undeclared(kept, prune)
	return slices.Concat(grow, add, remove), err
}

// undeclared removes the disks that are not kept, if that is said.
func (v View) undeclared(kept map[id.ID]bool, prune bool) ([]Step, error) {
	var remove []Step
	for _, d := range v.Volumes {
		if kept[d.ID] {
			continue
		}
		if !prune {
			return nil, errs.New(errs.Conflict,
				"VM %q has a disk in slot %d that is not declared; to remove a disk and all that is on it, say so (prune)", v.Intent.Name, d.Slot).
				At(errs.Field{Pointer: "/disks", Message: "lacks the disk in slot " + strconv.Itoa(d.Slot)})
		}
		remove = append(remove, Step{Kind: StepRemoveDisk, At: "/disks", Disk: d})
	}
	return remove, nil
}

// add adds a disk, which comes into the next slot.
func (d WantDisk) add(v View, slot int, at string) (Step, error) {
	if d.Slot != nil && *d.Slot != slot {
		return Step{}, notOurs(at+"/slot", "VM %q has no disk in slot %d, and a new one comes into slot %d", v.Intent.Name, *d.Slot, slot)
	}
	s := Step{Kind: StepAddDisk, At: at, Add: DiskSpec{SizeBytes: d.SizeBytes, Image: d.Image, Pool: d.Pool}}
	set(&s.Add.Limits, d.Limits)
	return s, nil
}

// find gives the disk that a declaration means; none if it means a new one.
func (d WantDisk) find(v View, place int, at string) (Volume, bool, error) {
	if d.ID != "" {
		has, err := v.Disk(d.ID)
		if err != nil || has.ID.String() != d.ID {
			return has, false, errs.New(errs.Conflict, "VM %q has no disk %q any more", v.Intent.Name, errs.Clip(d.ID)).
				At(errs.Field{Pointer: at + "/id", Message: "is no disk of this VM", Got: d.ID})
		}
		return has, true, nil
	}
	if d.Slot != nil {
		has, err := v.Disk(strconv.Itoa(*d.Slot))
		return has, err == nil, nil
	}
	if place < len(v.Volumes) {
		return v.Volumes[place], true, nil
	}
	return Volume{}, false, nil
}

// in tells whether a disk is in the storage pool of a name or an id.
func (v Volume) in(pool string) bool {
	return v.PoolID != nil && (pool == v.PoolName || pool == v.PoolID.String())
}

// grow compares a disk with the one that is there.
func (d WantDisk) grow(v View, has Volume, at string) ([]Step, error) {
	if d.Image != "" && !from(d.Image, has.ImageID, has.ImageName) {
		return nil, notOurs(at+"/image", "disk %d of VM %q is there already, and was not made from image %q", has.Slot, v.Intent.Name, errs.Clip(d.Image))
	}
	if d.Pool != "" && !has.in(d.Pool) {
		return nil, notOurs(at+"/pool", "disk %d of VM %q is there already, and not in storage pool %q: a disk does not move from one pool to another", has.Slot, v.Intent.Name, errs.Clip(d.Pool))
	}
	var steps []Step
	if d.SizeBytes != 0 && d.SizeBytes != has.SizeBytes {
		steps = append(steps, Step{Kind: StepGrowDisk, At: at, Disk: has, SizeBytes: d.SizeBytes})
	}
	if d.Limits != nil && *d.Limits != has.Limits {
		steps = append(steps, Step{Kind: StepLimitDisk, At: at, Disk: has, Limits: *d.Limits})
	}
	return steps, nil
}

// After gives the VM as it would be once a step is made and has settled, so that
// the next one can be judged before the first is begun.
func (v View) After(s Step) View {
	v.Job, v.Intent.Failure = nil, nil
	v.Volumes = slices.Clone(v.Volumes)
	switch s.Kind {
	case StepStop:
		v.Intent.PowerOn, v.Intent.Reserved = false, false
		if v.Observed != nil {
			o := *v.Observed
			o.Phase, o.Epoch, o.Reason = PhaseExited, v.Intent.Epoch, ""
			v.Observed = &o
		}
	case StepChange:
		v.Intent = s.Change.Apply(v.Intent)
	case StepGrowDisk:
		for i := range v.Volumes {
			if v.Volumes[i].ID == s.Disk.ID {
				v.Volumes[i].SizeBytes = s.SizeBytes
			}
		}
	case StepLimitDisk:
		for i := range v.Volumes {
			if v.Volumes[i].ID == s.Disk.ID {
				v.Volumes[i].Limits = s.Limits
			}
		}
	case StepEjectCD:
		v.Intent.CDROM = nil
	case StepAttachCD:
		v.Intent.CDROM = &CD{Name: s.CD}
	case StepAddDisk:
		slot, err := v.FreeSlot()
		if err == nil {
			v.Volumes = append(v.Volumes, Volume{ID: id.New(), Slot: slot, SizeBytes: s.Add.SizeBytes, ImageName: s.Add.Image, Limits: s.Add.Limits})
		}
	case StepRemoveDisk:
		v.Volumes = slices.DeleteFunc(v.Volumes, func(d Volume) bool { return d.ID == s.Disk.ID })
	case StepStart:
		v.Intent.PowerOn = true
	}
	return v
}

func deref[T any](p *[]T) []T {
	if p == nil {
		return nil
	}
	return *p
}

// Executes tells whether a step acts on the guest instead of changing the VM.
func (s Step) Executes() bool { return s.Kind == StepStop || s.Kind == StepStart }
