package vm

import (
	"fmt"
	"maps"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Change is what a user wants to be different of a VM. Nil fields stay.
type Change struct {
	Name        *string
	Labels      *map[string]string
	CPUs        *int
	MemoryBytes *int64
	// Hardware: what is empty stays.
	Hardware Hardware
	// CloudInit is the whole of it; one with nothing in it takes it away.
	CloudInit *CloudInit
	// SeedImage is the name or id of the CD that the guest finds; empty takes it away.
	SeedImage *string
	Policy    PolicyChange
	Limits    LimitsChange
}

// Resizes tells whether the VM's size would be different.
func (c Change) Resizes(in Intent) bool {
	return (c.CPUs != nil && *c.CPUs != in.CPUs) || (c.MemoryBytes != nil && *c.MemoryBytes != in.MemoryBytes)
}

// Refits tells whether the guest would see other hardware.
func (c Change) Refits(in Intent) bool { return in.Hardware.With(c.Hardware) != in.Hardware }

// Reseeds tells whether the guest would find another seed.
func (c Change) Reseeds(in Intent) bool {
	return (c.CloudInit != nil && !c.CloudInit.Equal(in.CloudInit)) || (c.SeedImage != nil && !in.SeedImage.Is(*c.SeedImage))
}

// OneSeed refuses what would give a VM two seeds.
func (c Change) OneSeed(in Intent) error {
	out := c.Apply(in)
	if out.CloudInit == nil || out.SeedImage == nil {
		return nil
	}
	at := "/seed_image"
	if c.SeedImage == nil {
		at = "/cloud_init"
	}
	return errs.New(errs.InvalidField, "VM %q cannot have seed_image beside cloud_init: it has one seed, made by NovaCron or one of your own; take the other away", in.Name).
		At(errs.Field{Pointer: at, Message: "is a second seed"})
}

// OneBoard refuses hardware of which one part cannot have another.
func (c Change) OneBoard(v View) error {
	h := c.Apply(v.Intent).Hardware
	at, why := "/machine/type", ""
	switch {
	case h == v.Intent.Hardware:
	case h.contradicts() != "":
		at, why = "/machine/firmware", "would be "+h.Firmware+", which "+h.contradicts()
	case h.Type == MachineMicro && len(v.Volumes)+len(v.NICs) > MicroSlots:
		why = fmt.Sprintf("has room for %d disks and network interfaces, and the VM has %d", MicroSlots, len(v.Volumes)+len(v.NICs))
	}
	if why == "" {
		return nil
	}
	return errs.New(errs.InvalidField, "VM %q: %s %s", v.Intent.Name, at, why).At(errs.Field{Pointer: at, Message: why})
}

// Rests tells whether the guest would see the change: it must not be there then.
func (c Change) Rests(in Intent) bool { return c.Resizes(in) || c.Reseeds(in) || c.Refits(in) }

// Validate checks what can be told without looking at any VM. The error lists
// every refused field.
func (c Change) Validate() error {
	in := c.Apply(Intent{Name: "any", CPUs: 1, MemoryBytes: MinMemory})
	ref := ""
	if c.SeedImage != nil {
		ref = *c.SeedImage
	}
	return Spec{Name: in.Name, Labels: in.Labels, CPUs: in.CPUs, MemoryBytes: in.MemoryBytes, Hardware: c.Hardware, CloudInit: in.CloudInit, SeedImage: ref, Policy: in.Policy, Limits: in.Limits}.Validate()
}

// Apply gives the intent as it would be.
func (c Change) Apply(in Intent) Intent {
	set(&in.Name, c.Name)
	set(&in.Labels, c.Labels)
	set(&in.CPUs, c.CPUs)
	set(&in.MemoryBytes, c.MemoryBytes)
	in.Hardware = in.Hardware.With(c.Hardware)
	in.Policy = c.Policy.Apply(in.Policy)
	in.Limits = c.Limits.Apply(in.Limits)
	if c.CloudInit != nil {
		in.CloudInit = c.CloudInit.OrNil()
	}
	if c.SeedImage != nil && !in.SeedImage.Is(*c.SeedImage) {
		in.SeedImage = nil
		if *c.SeedImage != "" {
			in.SeedImage = &CD{Name: *c.SeedImage}
		}
	}
	return in
}

// Differs tells whether anything would be different.
func (c Change) Differs(in Intent) bool {
	out := c.Apply(in)
	return out.Name != in.Name || !maps.Equal(out.Labels, in.Labels) || out.Policy.Normal() != in.Policy.Normal() || c.Rests(in) || c.Relimits(in)
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// does says what a request does to a VM, as in "cannot start VM".
func (r Request) does() string {
	switch r {
	case Resize:
		return "change the size, the hardware or the seed of VM"
	case Capture:
		return "read a disk of VM"
	case AddDisk:
		return "add a disk to VM"
	case GrowDisk:
		return "grow a disk of VM"
	case Limit:
		return "change the limits of VM"
	case ChangeCD:
		return "change the CD of VM"
	case RemoveDisk:
		return "remove a disk of VM"
	default:
		return string(r) + " VM"
	}
}

// mustRest are requests that change what a guest is made of: nothing may run,
// and nothing may start it again meanwhile.
var mustRest = map[Request]bool{Clone: true, Capture: true, Resize: true, AddDisk: true, RemoveDisk: true}

// unsettled: no process is left, and it is still wished for or counted.
func unsettled(in Intent) bool { return in.PowerOn || in.Reserved }

// rested refuses such a request for a VM whose guest ended by itself: its node
// would start it again after a reboot, from its own record, as it was before.
func rested(v View, r Request) (Action, error) {
	if !mustRest[r] || !unsettled(v.Intent) {
		return DoJob, nil
	}
	return endedByItself(v, r)
}

func endedByItself(v View, r Request) (Action, error) {
	return "", errs.New(errs.InvalidState,
		"cannot %s %q: its guest ended by itself, and its node would start it again after a reboot as it was; stop it first, which makes that final",
		r.does(), v.Intent.Name)
}
