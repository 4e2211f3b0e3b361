package ova

import (
	"cmp"
	"math/bits"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/novacron/novacron/internal/domain/image/disk"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// The types of devices (CIM_ResourceAllocationSettingData.ResourceType).
const (
	typeCPU      = 3
	typeMemory   = 4
	typeEthernet = 10
	typeDisk     = 17
)

// quiet are devices that a machine has anyway or that hold nothing: controllers,
// graphics, keyboards and the like.
var quiet = []int{5, 6, 9, 13, 20, 24}

// Machine is what a description asks for, as far as a machine of ours has it.
type Machine struct {
	Name        string
	CPUs        int
	MemoryBytes int64
	NICs        int
	// UEFI: does it start from UEFI firmware?
	UEFI  bool
	Disks []Disk
	// Ignored names devices that it will not have.
	Ignored []string
}

// Disk is one of a machine's disks, in the order the guest sees them.
type Disk struct {
	// File is its entry; empty for a disk that begins empty.
	File string
	// Bytes is its size.
	Bytes int64
}

// Machine reads the description, which was held against the manifest before.
func (a *Archive) Machine() (Machine, error) {
	text, err := a.text(a.description)
	if err != nil {
		return Machine{}, err
	}
	if err := a.Verify(a.description, nil); err != nil {
		return Machine{}, err
	}
	e, err := parse(a.description.Name, text)
	if err != nil {
		return Machine{}, err
	}
	if len(e.systems) != 1 || e.many || e.systems[0].sections != 1 {
		return Machine{}, errs.New(errs.Unsupported, "the appliance describes %d machines, or one in several ways: one is taken", len(e.systems))
	}
	m, err := devices(e.systems[0])
	if err != nil {
		return m, err
	}
	m.Disks, err = a.disks(e)
	return m, err
}

// devices reads all but the disks.
func devices(s ovfSystem) (Machine, error) {
	m := Machine{Name: cmp.Or(s.name, s.id), UEFI: s.uefi}
	for _, i := range s.items {
		switch i.kind {
		case typeCPU:
			m.CPUs += int(min(max(i.quantity, 0), 1<<20))
		case typeMemory:
			n, err := amount(i.quantity, cmp.Or(i.units, "MegaBytes"))
			if err != nil {
				return m, err
			}
			m.MemoryBytes += n
		case typeEthernet:
			m.NICs++
		case typeDisk:
		default:
			if !slices.Contains(quiet, i.kind) {
				m.Ignored = append(m.Ignored, errs.Clip(cmp.Or(i.named, "a device of type "+strconv.Itoa(i.kind))))
			}
		}
	}
	if m.CPUs < 1 || m.MemoryBytes < 1 {
		return m, errs.New(errs.InvalidImage, "the appliance's machine has %d CPUs and %s of memory", m.CPUs, unit.FormatBytes(m.MemoryBytes))
	}
	return m, nil
}

// disks finds the machine's disks, as they stand on their controllers.
func (a *Archive) disks(e envelope) (out []Disk, err error) {
	items := e.systems[0].items
	controller := func(i item) int {
		return slices.IndexFunc(items, func(c item) bool { return c.id == i.parent })
	}
	drives := slices.DeleteFunc(slices.Clone(items), func(i item) bool { return i.kind != typeDisk })
	slices.SortStableFunc(drives, func(x, y item) int {
		return cmp.Or(cmp.Compare(controller(x), controller(y)), cmp.Compare(x.address, y.address))
	})
	used := map[string]bool{}
	for _, i := range drives {
		name := strings.TrimPrefix(strings.TrimPrefix(i.host, "ovf:"), "/disk/")
		at := slices.IndexFunc(e.disks, func(d ovfDisk) bool { return d.id == name })
		if at < 0 || used[name] {
			return nil, errs.New(errs.InvalidImage, "the appliance's machine has a disk '%s' that is not described, or has it twice", errs.Clip(i.host))
		}
		used[name] = true
		d, err := a.disk(e, e.disks[at])
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func (a *Archive) disk(e envelope, d ovfDisk) (out Disk, err error) {
	if d.parent != "" {
		return out, errs.New(errs.InvalidImage, "the appliance's disk '%s' builds on another disk", errs.Clip(d.id))
	}
	capacity, err := strconv.ParseInt(d.capacity, 10, 64)
	if err != nil {
		return out, errs.New(errs.InvalidImage, "the appliance's disk '%s' has no size", errs.Clip(d.id)).Because(err)
	}
	if out.Bytes, err = amount(capacity, cmp.Or(d.units, "byte")); err != nil {
		return out, err
	}
	if d.file == "" {
		return out, nil
	}
	at := slices.IndexFunc(e.files, func(f ovfFile) bool { return f.id == d.file })
	if at < 0 {
		return out, errs.New(errs.InvalidImage, "the appliance's disk '%s' is in a file that is not described", errs.Clip(d.id))
	}
	f := e.files[at]
	if _, ok := a.Entry(f.href); !ok {
		return out, unsafeEntry(f.href, "is named by the description, and not in the archive")
	}
	if f.packed {
		return out, errs.New(errs.Unsupported, "the appliance's disk '%s' is compressed, or in several parts: export it again without", errs.Clip(f.href))
	}
	out.File = f.href
	return out, nil
}

// units are "byte * 2^20", and what programs before that wrote.
var (
	power2 = regexp.MustCompile(`^byte\s*\*\s*2\^([0-9]{1,2})$`)
	older  = map[string]int{"byte": 0, "bytes": 0, "kilobytes": 10, "megabytes": 20, "mb": 20, "gigabytes": 30, "gb": 30}
)

// amount gives bytes.
func amount(n int64, units string) (int64, error) {
	units = strings.ToLower(strings.TrimSpace(units))
	shift, ok := older[units]
	if m := power2.FindStringSubmatch(units); m != nil {
		shift, _ = strconv.Atoi(m[1])
		ok = true
	}
	if !ok || n < 0 || bits.Len64(uint64(n))+shift > 62 || n<<shift > disk.MaxVirtual {
		return 0, errs.New(errs.InvalidImage, "the appliance has a size that is none: %d %s", n, errs.Clip(units))
	}
	return n << shift, nil
}
