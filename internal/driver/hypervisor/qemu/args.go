package qemu

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// shape is what the host adds to a machine to make a command line.
type shape struct {
	binary  string
	data    []string // folders of its firmware, where that is not the system's
	machine string   // such as "pc-q35-7.2"
	accel   string
	code    string // path of the image of UEFI firmware
	cpu     string // such as "Westmere-v1,enforce"
	ram     string // path of the memory file
	// kernel and initrd are their paths, as QEMU sees them
	kernel, initrd string
	// inside is the folder in which it may make sockets
	inside string
	// nets are the descriptors on which each interface's user-mode network connects;
	// none where QEMU has to be the network itself
	nets map[int]int
	// taps are the descriptors of the interfaces that are joined to bridges, by slot
	taps map[int]int
	// agent: is there a line to an agent in the guest?
	agent bool
	// layout is the set of devices beside those that a machine is asked to have
	layout int
	// awaits: does its memory come from another host?
	awaits bool
}

// object is a JSON value of QEMU's command line. Keys are sorted by encoding.
type object map[string]any

// commandLine gives the arguments of QEMU. Whatever has a JSON form is given in
// it; the rest is made of words and numbers of ours. The only text of a user is
// the kernel's command line, an argument of its own that QEMU hands to the guest.
func commandLine(m contract.Machine, s shape) ([]string, error) {
	a := []string{
		s.binary,
		"-name", m.VM.String() + ",debug-threads=on",
		"-uuid", m.VM.String(),
		"-nodefaults", "-no-user-config", "-display", "none", "-S",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
	}
	for _, dir := range s.data {
		a = append(a, "-L", dir)
	}
	board, firmware := boardOptions(m, s)
	a = append(a, board...)
	a = append(a, "-smp", strconv.Itoa(m.CPUs), "-rtc", "base=utc")
	switch s.accel {
	case "kvm":
		a = append(a, "-accel", "kvm")
	default:
		a = append(a, "-accel", "tcg,tb-size="+strconv.Itoa(tbSizeMiB))
	}
	a = append(append(a, firmware...), "-cpu", s.cpu)
	w := jsonArgs{micro: s.micro()}
	w.add("-object", object{"qom-type": "memory-backend-file", "id": "ram", "mem-path": s.ram, "size": m.MemoryBytes, "share": true})
	w.addFixedDevices()
	for i, d := range m.Disks {
		w.addDisk(i, d, m.Boot.Kernel == "" && i == 0)
	}
	w.addCDs(m.CDs)
	w.addFirmware(m, s)
	for i, n := range m.NICs {
		if err := w.addNIC(i, n, s); err != nil {
			return nil, err
		}
	}
	w.addExtras(m, s)
	if w.err != nil {
		return nil, w.err
	}
	a = append(a,
		"-chardev", fmt.Sprintf("socket,id=control,fd=%d,server=on,wait=off", keeper.ControlFD),
		"-mon", "chardev=control,mode=control",
		// The keeper is connected before QEMU starts, so waiting for it costs nothing
		// and the guest's first byte is not lost.
		"-chardev", fmt.Sprintf("socket,id=serial,fd=%d,server=on,wait=on", keeper.SerialFD),
	)
	a = append(a, w.args...)
	if m.Incoming != "" || s.awaits {
		a = append(a, "-incoming", "defer")
	}
	return append(a, bootArgs(m.Boot, s)...), nil
}

// addExtras adds what machines have beside what they are asked to have, in the order in
// which it was invented: what is newer goes behind what was there.
func (w *jsonArgs) addExtras(m contract.Machine, s shape) {
	if m.Screen {
		w.addScreen(s)
	}
	if s.agent {
		w.addAgent(s)
	}
	if m.Drive {
		w.addDrive(m)
	}
	if m.Screen && s.layout >= layoutTablet {
		w.addTablet()
	}
}

func bootArgs(b contract.Boot, s shape) []string {
	if b.Kernel == "" {
		return nil
	}
	a := []string{"-kernel", s.kernel}
	if b.Initrd != "" {
		a = append(a, "-initrd", s.initrd)
	}
	if b.Cmdline != "" {
		a = append(a, "-append", b.Cmdline)
	}
	return a
}

// boardOptions are those of the board, and those of its firmware.
func boardOptions(m contract.Machine, s shape) (board, firmware []string) {
	if s.micro() {
		return microOptions, nil
	}
	flash, firmware := firmwareOptions(m)
	return []string{
		"-machine", s.machine + ",memory-backend=ram,usb=off,vmport=off,dump-guest-core=off" + flash,
		"-action", "panic=pause",
		"-global", "ICH9-LPC.disable_s3=1", "-global", "ICH9-LPC.disable_s4=1",
	}, firmware
}

// jsonArgs collects options given as JSON.
type jsonArgs struct {
	micro  bool // on a board without PCI
	places int  // so many of its places are taken
	args   []string
	err    error
	images int    // so many have been added
	direct bool   // is the next one used past the host's cache?
	opaque string // what the sets of those that follow are known by
}

func (w *jsonArgs) add(option string, o object) {
	b, err := json.Marshal(o)
	if err != nil && w.err == nil {
		w.err = err
	}
	w.args = append(w.args, option, string(b))
}

func (w *jsonArgs) addFixedDevices() {
	w.add("-device", object{"driver": "isa-serial", "id": "serial0", "chardev": "serial"})
	// by it a guest tells that its kernel gave up; it is halted until we have seen that
	w.add("-device", object{"driver": "pvpanic", "id": "panic0"})
	w.add("-object", object{"qom-type": "rng-builtin", "id": "entropy"})
	w.addVirtio("rng", object{"id": "rng0", "rng": "entropy"})
	w.addVirtio("balloon", object{"id": "balloon0", "deflate-on-oom": true, "free-page-reporting": true})
}

// diskName is how a disk is called in the guest and in messages.
func diskName(slot int) string { return "vd" + string(rune('a'+slot)) }

// addDisk adds the nodes of a disk, each with an explicit driver and nothing that
// QEMU would look up by itself, and its device.
func (w *jsonArgs) addDisk(slot int, d contract.Disk, boot bool) {
	name := diskName(slot)
	w.direct = d.Shared && directly(d.File.Path)
	top := w.addImage(name, d.File, d.ReadOnly, d.Backing)
	w.direct = false
	dev := object{
		"id": "disk-" + name, "drive": top,
		// A full or failing disk halts the guest, with the reason, instead of
		// handing it errors that it may not survive.
		"werror": "stop", "rerror": "stop",
		"serial": serialOf(d),
	}
	if boot {
		dev["bootindex"] = 0
	}
	w.addVirtio("blk", dev)
}

// addCDs adds drives for CDs, behind a controller that every Linux for virtual
// machines drives: kernels made for clouds leave out that of a real board.
func (w *jsonArgs) addCDs(cds []contract.CD) {
	if len(cds) == 0 {
		return
	}
	w.addVirtio("scsi", object{"id": "scsi0"})
	for i, c := range cds {
		name := cdName(i)
		top := w.addImage(name, c.File, true, nil)
		w.add("-device", object{"driver": "scsi-cd", "id": "cd-" + name, "bus": "scsi0.0", "scsi-id": i, "drive": top})
	}
}

// cdName is how a CD's drive is called in the guest and in messages.
func cdName(slot int) string { return "sr" + strconv.Itoa(slot) }

// serialOf is what tells disks apart in the guest: the random end of the id, as
// long as virtio allows.
func serialOf(d contract.Disk) string {
	s := strings.ReplaceAll(d.ID.String(), "-", "")
	return s[len(s)-20:]
}

// addImage adds the nodes of one image, its backing first, and gives the name of
// the top one.
func (w *jsonArgs) addImage(name string, f contract.File, readOnly bool, backing *contract.File) string {
	format := object{
		"driver": f.Format, "node-name": name, "file": name + fileSuffix, "read-only": readOnly,
	}
	if !readOnly {
		format["discard"] = "unmap"
	}
	if f.Format == "qcow2" {
		format["backing"] = nil
		if backing != nil {
			format["backing"] = w.addImage(name+"-base", *backing, true, nil)
		}
	}
	option, path := fdset(w.images)
	w.images++
	w.args = append(w.args, "-add-fd", option+w.opaque)
	file := fileNode(name, path, readOnly)
	if w.direct {
		file["cache"] = object{"direct": true}
	}
	w.add("-blockdev", file)
	w.add("-blockdev", format)
	return name
}

// fileNode is the node beneath that of a format.
func fileNode(name, path string, readOnly bool) object {
	file := object{
		"driver": "file", "node-name": name + fileSuffix, "filename": path,
		"read-only": readOnly, "locking": "on", "aio": "threads",
	}
	if !readOnly {
		file["discard"] = "unmap"
	}
	return file
}

// directly tells whether a file can be read and written past the host's cache. Of a file that
// several hosts have, a cache would show one host what another has overwritten.
func directly(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// fileSuffix ends the name of a file's node.
const fileSuffix = "-file"

func (w *jsonArgs) addNIC(slot int, n contract.NIC, s shape) error {
	name := "net" + strconv.Itoa(slot)
	if fd, joined := s.taps[slot]; joined {
		w.add("-netdev", object{"type": "tap", "id": name, "fd": strconv.Itoa(fd)})
	} else if fd, outside := s.nets[slot]; outside {
		w.add("-netdev", object{"type": "stream", "id": name, "server": true, "addr": object{"type": "fd", "str": strconv.Itoa(fd)}})
	} else if err := w.addSlirp(name, n); err != nil {
		return err
	}
	dev := object{"id": "nic-" + name, "netdev": name, "mac": n.MAC}
	if !w.micro {
		dev["romfile"] = ""
	}
	w.addVirtio("net", dev)
	return nil
}

// addSlirp has QEMU itself be the user-mode network.
func (w *jsonArgs) addSlirp(name string, n contract.NIC) error {
	forwards := []object{}
	for _, f := range n.Forwards {
		host, err := f.Host()
		if err != nil {
			return err
		}
		if !host.Addr().Is4() {
			return errs.New(errs.Unsupported, "port forwards of %s: user-mode networking forwards from IPv4 addresses only", host)
		}
		forwards = append(forwards, object{"str": fmt.Sprintf("%s:%s-:%d", f.Protocol, host, f.GuestPort)})
	}
	w.add("-netdev", object{"type": "user", "id": name, "hostfwd": forwards})
	return nil
}
