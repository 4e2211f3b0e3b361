package contract

import (
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Bounds of a machine that every driver shares; a driver may have narrower ones.
const (
	MaxCPUs        = 255
	MinMemoryBytes = 1 * unit.MiB
	MaxMemoryBytes = 16 * unit.TiB
	MaxDisks       = 26
	MaxCDs         = 4
	MaxNICs        = 16
	MaxForwards    = 64
	MaxCmdline     = 2048
)

var macForm = regexp.MustCompile(`^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$`)

var bridgeForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$`)

// Validate tells whether the machine can be launched at all. Drivers call it
// first in Launch, so that each of them refuses the same machines.
func (m Machine) Validate() error {
	if m.VM == id.Nil || m.Epoch < 1 {
		return errs.New(errs.InvalidField, "a machine needs a VM id and an owner epoch of at least 1")
	}
	if relative(m.Incoming) {
		return errs.New(errs.InvalidField, "the path of a saved memory is absolute")
	}
	if err := m.validateSize(); err != nil {
		return err
	}
	if err := m.Boot.validate(len(m.Disks) > 0); err != nil {
		return err
	}
	if err := m.validateDevices(); err != nil {
		return err
	}
	if err := m.validateMedium(); err != nil {
		return err
	}
	return m.ValidateLimits(m.Limits)
}

func (m Machine) validateSize() error {
	if err := m.validateHardware(); err != nil {
		return err
	}
	if m.CPUs < 1 || m.CPUs > MaxCPUs {
		return errs.New(errs.OutOfRange, "%d vCPUs: a machine has 1 to %d", m.CPUs, MaxCPUs)
	}
	if m.MemoryBytes < MinMemoryBytes || m.MemoryBytes > MaxMemoryBytes || m.MemoryBytes%unit.MiB != 0 {
		return errs.New(errs.InvalidSize, "%d bytes of memory: a machine has whole MiB, 1 MiB to 16 TiB", m.MemoryBytes)
	}
	if len(m.Disks) > MaxDisks || len(m.CDs) > MaxCDs || len(m.NICs) > MaxNICs {
		return errs.New(errs.OutOfRange, "%d disks, %d CDs and %d network interfaces: a machine has at most %d, %d and %d",
			len(m.Disks), len(m.CDs), len(m.NICs), MaxDisks, MaxCDs, MaxNICs)
	}
	return nil
}

func (m Machine) validateHardware() error {
	if m.Type != "" && !vm.ValidBoard(m.Type) || m.CPU != "" && !vm.ValidCPU(m.CPU) {
		return errs.New(errs.InvalidField, "%q with %q: no type of a board, or no model of a processor", errs.Clip(m.Type), errs.Clip(m.CPU))
	}
	if m.Type == vm.MachineMicro && m.Boot.Kernel == "" {
		return errs.New(errs.InvalidField, "a %s starts from a kernel, and has none: it has no firmware that starts from disks", m.Type)
	}
	return m.validateFirmware()
}

func (m Machine) validateFirmware() error {
	if m.Firmware != "" && !vm.ValidFirmware(m.Firmware) {
		return errs.New(errs.InvalidField, "%q is no firmware", errs.Clip(m.Firmware))
	}
	if m.UEFI() != (m.Variables != "") || relative(m.Variables) {
		return errs.New(errs.InvalidField, "UEFI firmware, and no other, has a file for its variables, by its absolute path")
	}
	return nil
}

func (m Machine) validateDevices() error {
	seen := map[id.ID]bool{}
	for _, d := range m.Disks {
		if d.ID == id.Nil || seen[d.ID] {
			return errs.New(errs.InvalidField, "disk %s: each disk has an id of its own", d.ID)
		}
		seen[d.ID] = true
		if err := d.validate(); err != nil {
			return err
		}
	}
	if err := m.validateCDs(seen); err != nil {
		return err
	}
	for _, n := range m.NICs {
		if n.ID == id.Nil || seen[n.ID] {
			return errs.New(errs.InvalidField, "network interface %s: each has an id of its own", n.ID)
		}
		seen[n.ID] = true
		if err := n.validate(); err != nil {
			return err
		}
	}
	return nil
}

func (m Machine) validateCDs(seen map[id.ID]bool) error {
	for _, c := range m.CDs {
		if c.ID == id.Nil || seen[c.ID] {
			return errs.New(errs.InvalidField, "CD %s: each has an id of its own", c.ID)
		}
		seen[c.ID] = true
		if err := c.File.validate(); err != nil {
			return err
		}
		if c.File.Format != "raw" {
			return errs.New(errs.InvalidField, "CD %s: its image is raw", c.ID)
		}
	}
	return nil
}

func (b Boot) validate(hasDisk bool) error {
	switch {
	case b.Kernel == "" && (b.Initrd != "" || b.Cmdline != ""):
		return errs.New(errs.InvalidField, "an initrd or a command line needs a kernel")
	case b.Kernel == "" && !hasDisk:
		return errs.New(errs.InvalidField, "nothing to boot from: give a disk or a kernel")
	case relative(b.Kernel) || relative(b.Initrd):
		return errs.New(errs.InvalidField, "kernel and initrd are absolute paths")
	case len(b.Cmdline) > MaxCmdline:
		return errs.New(errs.TooLarge, "the kernel command line has %d bytes, at most %d are possible", len(b.Cmdline), MaxCmdline)
	}
	if i := strings.IndexFunc(b.Cmdline, unicode.IsControl); i >= 0 {
		return errs.New(errs.InvalidField, "the kernel command line holds a control character at byte %d", i)
	}
	return nil
}

// relative tells whether a path is given and not absolute.
func relative(path string) bool { return path != "" && !filepath.IsAbs(path) }

func (d Disk) validate() error {
	if err := d.File.validate(); err != nil {
		return err
	}
	if d.Backing == nil {
		return nil
	}
	if d.File.Format != "qcow2" {
		return errs.New(errs.InvalidField, "disk %s: only a qcow2 disk has a backing file", d.ID)
	}
	return d.Backing.validate()
}

func (f File) validate() error {
	if !filepath.IsAbs(f.Path) {
		return errs.New(errs.InvalidField, "the path of a disk image is absolute")
	}
	if f.Format != "qcow2" && f.Format != "raw" {
		return errs.New(errs.InvalidField, "%q is not a disk format: qcow2 or raw", errs.Clip(f.Format))
	}
	return nil
}

func (n NIC) validate() error {
	if !macForm.MatchString(n.MAC) {
		return errs.New(errs.InvalidField, "%q is not a unicast MAC address in lower case with colons", errs.Clip(n.MAC))
	}
	if n.Bridge != "" && (!bridgeForm.MatchString(n.Bridge) || len(n.Forwards) > 0) {
		return errs.New(errs.InvalidField, "%q is not the name of a bridge, or ports are forwarded beside it", errs.Clip(n.Bridge))
	}
	if len(n.Forwards) > MaxForwards {
		return errs.New(errs.OutOfRange, "%d port forwards on one interface, at most %d are possible", len(n.Forwards), MaxForwards)
	}
	for _, f := range n.Forwards {
		if err := f.validate(); err != nil {
			return err
		}
	}
	return nil
}

func (f Forward) validate() error {
	if f.Protocol != "tcp" && f.Protocol != "udp" {
		return errs.New(errs.InvalidField, "%q is not a protocol to forward: tcp or udp", errs.Clip(f.Protocol))
	}
	if f.HostPort < 1 || f.HostPort > 65535 || f.GuestPort < 1 || f.GuestPort > 65535 {
		return errs.New(errs.OutOfRange, "forward %d to %d: ports are 1 to 65535", f.HostPort, f.GuestPort)
	}
	_, err := f.Host()
	return err
}

// Host is the host's side of the forward, with the default filled in.
func (f Forward) Host() (netip.AddrPort, error) {
	ip := f.HostIP
	if ip == "" {
		ip = "127.0.0.1"
	}
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Zone() != "" {
		return netip.AddrPort{}, errs.New(errs.InvalidField, "%q is not an IP address of the host", errs.Clip(f.HostIP))
	}
	return netip.AddrPortFrom(a, uint16(f.HostPort)), nil
}
