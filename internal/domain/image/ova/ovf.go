package ova

import (
	"errors"
	"strconv"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// envelope is the part of a description that is read.
type envelope struct {
	files   []ovfFile
	disks   []ovfDisk
	systems []ovfSystem
	many    bool
}

type ovfFile struct {
	id, href string
	packed   bool // or in several parts
}

type ovfDisk struct{ id, file, capacity, units, parent string }

type ovfSystem struct {
	id, name string
	// sections counts those of hardware, which the others are of.
	sections int
	items    []item
	uefi     bool
}

// item is one device.
type item struct {
	kind         int // ResourceType
	id, parent   string
	address      int
	host         string
	quantity     int64
	units, named string
}

// parse reads a description.
func parse(name string, text []byte) (e envelope, err error) {
	root, err := tree(name, text)
	if err != nil {
		return e, err
	}
	top := root.all("Envelope")
	if len(top) != 1 || len(root.kids) != 1 {
		return e, errs.New(errs.InvalidImage, "the description '%s' is no OVF", errs.Clip(name))
	}
	for _, f := range top[0].all("References", "File") {
		packed := f.has("chunkSize") != "" || f.has("compression") != "" && f.has("compression") != "identity"
		e.files = append(e.files, ovfFile{f.has("id"), f.has("href"), packed})
	}
	for _, d := range top[0].all("DiskSection", "Disk") {
		e.disks = append(e.disks, ovfDisk{d.has("diskId"), d.has("fileRef"), d.has("capacity"), d.has("capacityAllocationUnits"), d.has("parentRef")})
	}
	e.many = len(top[0].all("VirtualSystemCollection")) > 0
	for _, s := range top[0].all("VirtualSystem") {
		sys := ovfSystem{id: s.has("id"), name: s.says("Name"), sections: len(s.all("VirtualHardwareSection")), uefi: firmware(s)}
		if sys.items, err = items(s); err != nil {
			return e, err
		}
		e.systems = append(e.systems, sys)
	}
	return e, nil
}

// firmware looks where VMware and VirtualBox say which it is.
func firmware(s *element) (uefi bool) {
	for _, c := range s.all("VirtualHardwareSection", "Config") {
		uefi = uefi || c.has("key") == "firmware" && c.has("value") == "efi"
	}
	for _, path := range [][]string{{"Machine", "Hardware", "Firmware"}, {"Machine", "Hardware", "BIOS", "Firmware"}} {
		kind := s.has("type", path...)
		uefi = uefi || len(kind) >= 3 && kind[:3] == "EFI"
	}
	return uefi
}

func items(s *element) (out []item, err error) {
	for _, kind := range []string{"Item", "StorageItem", "EthernetPortItem"} {
		for _, e := range s.all("VirtualHardwareSection", kind) {
			i, err := device(e)
			if err != nil {
				return nil, err
			}
			out = append(out, i)
		}
	}
	return out, nil
}

func device(e *element) (item, error) {
	kind, err1 := number(e, "ResourceType")
	address, err2 := number(e, "AddressOnParent")
	quantity, err3 := number(e, "VirtualQuantity")
	return item{
		kind: int(kind), id: e.says("InstanceID"), parent: e.says("Parent"), address: int(address), host: e.says("HostResource"),
		quantity: quantity, units: e.says("AllocationUnits"), named: e.says("ElementName"),
	}, errors.Join(err1, err2, err3)
}

// number reads one that may be absent.
func number(e *element, field string) (int64, error) {
	text := e.says(field)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, errs.New(errs.InvalidImage, "the appliance has a %s that is no number: '%s'", field, errs.Clip(text)).Because(err)
	}
	return n, nil
}
