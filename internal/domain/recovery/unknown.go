package recovery

import (
	"fmt"
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
	p.Differences = []string{"the database does not have it"}
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
	case !h.believable():
		return nil, "its node tells numbers that cannot be true"
	}
	a := c.adopt(h, vm.Intent{Epoch: -1})
	a.Fence = Fence{h.Epoch, h.OpSeq}
	a.CPUs, a.MemoryBytes = m.CPUs, m.MemoryBytes
	a.Name = c.freeName(m.Name, h.VM)
	if err := (vm.Spec{Name: m.Name, CPUs: m.CPUs, MemoryBytes: m.MemoryBytes}).Validate(); err != nil {
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
		case size <= 0 || size%512 != 0 || slot >= vm.MaxDisks:
			return "its disk " + d.String() + " cannot be true"
		}
		vol := vm.Volume{ID: d, Slot: slot, SizeBytes: size}
		if base, ok := h.Bases[d]; ok {
			vol.ImageID = c.image(image.Disk, "", base)
			if slot == 0 {
				a.ImageID = vol.ImageID
			}
		}
		a.Volumes = append(a.Volumes, vol)
	}
	if m := h.Machine; m.Kernel != nil && m.Initrd != nil {
		a.ImageID = c.image(image.Kernel, m.Cmdline, *m.Kernel, *m.Initrd)
	}
	return ""
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

// image finds the image that has the files, or plans one that does.
func (c *comparison) image(kind image.Kind, cmdline string, files ...image.File) *id.ID {
	roles := kind.Roles()
	for _, i := range slices.Concat(c.Images, c.plan.Images) {
		if i.Kind != kind || i.Cmdline != cmdline || i.State == image.Deleting {
			continue
		}
		match := true
		for n, r := range roles {
			f, ok := i.File(r)
			match = match && ok && f.SHA256 == files[n].SHA256
		}
		if match {
			return &i.ID
		}
	}
	made := image.Image{ID: id.New(), Name: "recovered-" + clip(files[0].SHA256, 12), Kind: kind, Cmdline: cmdline, State: image.Ready}
	for n, r := range roles {
		f := files[n]
		if !image.ValidSum(f.SHA256) || f.SizeBytes <= 0 || f.VirtualBytes < 0 || f.Format != "qcow2" && f.Format != "raw" {
			return nil
		}
		f.Role = r
		made.Files = append(made.Files, f)
	}
	for _, i := range slices.Concat(c.Images, c.plan.Images) {
		if i.Name == made.Name {
			made.Name += fmt.Sprintf("-%d", len(c.plan.Images)+2)
			break
		}
	}
	c.plan.Images = append(c.plan.Images, made)
	return &made.ID
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// disks compares the disks of a VM that both know.
func (c *comparison) disks(n Node, h Holding, v vm.View, a *Adoption) {
	slot := 0
	has := map[id.ID]bool{}
	for _, d := range v.Volumes {
		has[d.ID] = true
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
		if has[d] || !there || c.volumes[d] || size <= 0 || size%512 != 0 || slot >= vm.MaxDisks {
			continue
		}
		vol := vm.Volume{ID: d, Slot: slot, SizeBytes: size}
		if base, ok := h.Bases[d]; ok {
			vol.ImageID = c.image(image.Disk, "", base)
		}
		a.Volumes = append(a.Volumes, vol)
		c.volumes[d] = true
		slot++
	}
}
