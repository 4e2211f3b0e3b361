package recovery

import (
	"slices"
	"strings"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// unknown decides about a VM that the database does not have: it is adopted from
// its node's record, unless that does not say enough, or somebody decides
// otherwise.
func (c *comparison) unknown(n Node, h Holding) VMPlan {
	name := h.VM.String()
	if h.Machine != nil {
		name = h.Machine.Name
	}
	p := about(Unknown, n, h, name)
	p.Differences = append([]string{"the database does not have it"}, h.driveIs()...)
	a, why := c.recreate(n, h)
	switch {
	case why != "":
		p.Action, p.Why = Leave, why
	case c.Leave[h.VM], c.Left[Left{h.VM, n.ID}] && !c.Adopt[h.VM]:
		p.Action = Leave
	default:
		p.Action, p.Adoption = Adopt, a
		c.names[a.Name] = true
		for _, d := range a.Volumes {
			c.volumes[d.ID] = true
		}
		for _, nic := range a.NICs {
			c.MACs[nic.MAC] = true
		}
	}
	return p
}

// recreate makes a VM of its node's record, or says why it cannot. Nothing that a
// node tells is taken that a request would be refused for.
func (c *comparison) recreate(n Node, h Holding) (*Adoption, string) {
	m := h.Machine
	switch {
	case h.Erased:
		return nil, "it was deleted, and something of it runs all the same"
	case m == nil:
		return nil, "its node's record does not say what it is made of"
	}
	if why := c.unbelievable(h, vm.Intent{}); why != "" {
		return nil, why
	}
	a := c.adopt(h, vm.Intent{Epoch: -1})
	a.Fence = Fence{h.Epoch, h.OpSeq}
	a.CPUs, a.MemoryBytes = m.CPUs, m.MemoryBytes
	a.Name = c.freeName(m.Name, h.VM)
	a.Hardware = vm.Hardware{Type: vm.MachineQ35, CPU: vm.CPUMax, Firmware: vm.FirmwareBIOS}.With(m.Hardware) // as launches of no model are
	if err := (vm.Spec{Name: m.Name, CPUs: m.CPUs, MemoryBytes: m.MemoryBytes, Hardware: m.Hardware}).Validate(); err != nil {
		return nil, "its node's record cannot be true: " + errs.As(err).Message
	}
	if why := c.recreateDisks(n, h, a); why != "" {
		return nil, why
	}
	return a, c.recreateNICs(m.NICs, a)
}

func (c *comparison) recreateDisks(n Node, h Holding, a *Adoption) string {
	for slot, d := range disksOf(h) {
		size, there := n.Volumes[d]
		switch {
		case c.volumes[d]:
			return "its disk " + d.String() + " is another VM's in the database"
		case !there:
			return "its disk " + d.String() + " is not on its node"
		case !possible(size, slot):
			return "its disk " + d.String() + " cannot be true"
		}
		a.Volumes = append(a.Volumes, c.volume(n, h, d, slot, size))
	}
	if m := h.Machine; m.Kernel != nil && m.Initrd != nil {
		a.ImageID = c.image(image.Kernel, m.Cmdline, *m.Kernel, *m.Initrd)
	} else if len(a.Volumes) > 0 {
		a.ImageID = a.Volumes[0].ImageID
	}
	if cd := h.Machine.CD; cd != nil {
		a.SeedImageID = c.image(image.ISO, "", *cd)
	}
	if cd := h.Machine.Medium; cd != nil {
		a.CDROMID = c.image(image.ISO, "", *cd)
	}
	return ""
}

// possible tells whether there can be a disk of the size at the slot.
func possible(size int64, slot int) bool {
	return size > 0 && size%512 == 0 && slot < vm.MaxDisks
}

// driveIs tells what a VM that is adopted no longer finds in its CD drive.
func (h Holding) driveIs() []string {
	switch {
	case h.Machine == nil:
		return nil
	case h.Machine.Seed:
		return []string{"what cloud-init in it is told is not known any more: its next start is without"}
	default:
		return nil
	}
}

// volume makes a disk of what its node has.
func (c *comparison) volume(n Node, h Holding, d id.ID, slot int, size int64) vm.Volume {
	vol := vm.Volume{ID: d, Slot: slot, SizeBytes: size}
	if p, in := n.Pools[d]; in {
		vol.PoolID = &p
	}
	if base, ok := h.Bases[d]; ok {
		vol.ImageID = c.image(image.Disk, "", base)
	}
	return vol
}

func (c *comparison) recreateNICs(nics []vm.NIC, a *Adoption) string {
	for slot, nic := range nics {
		if !ownMAC(nic.MAC) || c.MACs[nic.MAC] || nic.ID == id.Nil {
			return "its interface " + errs.Clip(nic.MAC) + " is another VM's in the database, or none of ours"
		}
		if err := (vm.Spec{Name: "any", CPUs: 1, MemoryBytes: vm.MinMemory, NICs: []vm.NICSpec{{Forwards: nic.Forwards}}}).Validate(); err != nil {
			return "its node's record cannot be true: " + errs.As(err).Message
		}
		nic.Slot = slot
		a.NICs = append(a.NICs, nic)
	}
	return ""
}

// ownMAC tells whether the address is of our own range.
func ownMAC(mac string) bool {
	rest, ok := strings.CutPrefix(mac, "02:4e:43:")
	return ok && len(rest) == 8 && rest[2] == ':' && rest[5] == ':' &&
		strings.Trim(rest, "0123456789abcdef:") == ""
}

// freeName keeps a VM's name, or makes one of it that nobody has.
func (c *comparison) freeName(name string, v id.ID) string {
	if !c.names[name] {
		return name
	}
	tail := "-" + id.Short(v)
	return strings.TrimSuffix(name[:min(len(name), 63-len(tail))], "-") + tail
}

// disksOf lists a VM's disks in the order of the guest, then those that it was not
// launched with yet.
func disksOf(h Holding) []id.ID {
	var out []id.ID
	if h.Machine != nil {
		out = slices.Clone(h.Machine.Volumes)
	}
	for _, d := range h.Volumes {
		if !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}

// image finds the image that has the files, or plans one that does; nil when what
// the node tells of them cannot be true. Files are in the order of the kind's roles.
func (c *comparison) image(kind image.Kind, cmdline string, files ...image.File) *id.ID {
	known := slices.Concat(c.Images, c.plan.Images)
	for _, i := range known {
		if i.Kind == kind && i.Cmdline == cmdline && i.State != image.Deleting && has(i, files) {
			return &i.ID
		}
	}
	made, ok := remade(kind, cmdline, files)
	if !ok {
		return nil
	}
	if slices.ContainsFunc(known, func(i image.Image) bool { return i.Name == made.Name }) {
		made.Name += "-" + id.Short(made.ID)
	}
	c.plan.Images = append(c.plan.Images, made)
	return &made.ID
}

// remade makes an image of its files, if they can be true.
func remade(kind image.Kind, cmdline string, files []image.File) (image.Image, bool) {
	made := image.Image{ID: id.New(), Kind: kind, Cmdline: cmdline, State: image.Ready}
	roles := kind.Roles()
	for n, f := range files {
		if n >= len(roles) || !image.ValidSum(f.SHA256) || f.SizeBytes <= 0 || f.VirtualBytes < 0 || f.Format != "qcow2" && f.Format != "raw" {
			return made, false
		}
		f.Role = roles[n]
		made.Files = append(made.Files, f)
		made.Name = "recovered-" + made.Files[0].SHA256[:12]
	}
	return made, len(files) == len(roles)
}

// has tells whether an image has just these files.
func has(i image.Image, files []image.File) bool {
	roles := i.Kind.Roles()
	for n, want := range files {
		if n >= len(roles) {
			return false
		}
		if f, ok := i.File(roles[n]); !ok || f.SHA256 != want.SHA256 {
			return false
		}
	}
	return len(files) == len(roles)
}

// disks compares the disks of a VM that both know.
func (c *comparison) disks(n Node, h Holding, v vm.View, a *Adoption) {
	slot := 0
	for _, d := range v.Volumes {
		slot = max(slot, d.Slot+1)
		size, there := n.Volumes[d.ID]
		switch {
		case !there:
			a.Gone = append(a.Gone, d)
		case size > d.SizeBytes && size%512 == 0:
			d.SizeBytes = size
			a.Resized = append(a.Resized, d)
		}
	}
	for _, d := range disksOf(h) {
		size, there := n.Volumes[d]
		if !there || c.volumes[d] || !possible(size, slot) {
			continue
		}
		a.Volumes = append(a.Volumes, c.volume(n, h, d, slot, size))
		c.volumes[d] = true
		slot++
	}
}
