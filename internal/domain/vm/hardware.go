package vm

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Hardware is what a guest is made of beside its size: the board and the processor
// that it sees. In a change, empty fields stay.
type Hardware struct {
	// Type is the type of its board. MachineQ35 until the VM is placed for the first
	// time, from then on one version of it, such as "pc-q35-7.2": what a guest sees
	// does not change with the programs of its node.
	Type string
	// CPU is the model of its processor: CPUBaseline2, CPUBaseline3, CPUHost, CPUMax,
	// or one that QEMU has a name for.
	CPU string
	// Firmware is what it starts by: FirmwareBIOS, FirmwareUEFI or FirmwareSecure.
	Firmware string
}

// Types of boards and models of processors that are not QEMU's own names.
const (
	// MachineQ35 is the newest version of that board on the node that takes the VM.
	MachineQ35 = "q35"
	// MachineMicro is a board of little but virtio devices, without versions: no PCI, no
	// screen, no UEFI.
	MachineMicro = "microvm"

	// CPUBaseline2 and CPUBaseline3 are levels 2 and 3 of the x86-64 ABI, and AES.
	CPUBaseline2 = "x86-64-v2"
	CPUBaseline3 = "x86-64-v3"
	// CPUHost is the node's own processor; where guests are emulated there is none.
	CPUHost = "host"
	// CPUMax is all that the node can do, emulated or not.
	CPUMax = "max"

	FirmwareBIOS = "bios"
	FirmwareUEFI = "uefi"
	// FirmwareSecure starts only what is signed by whom it trusts.
	FirmwareSecure = "uefi-secure-boot"
)

var (
	boardForm = regexp.MustCompile(`^(microvm|q35|pc-q35-[0-9]{1,3}\.[0-9]{1,3}(\.[0-9]{1,3})?)$`)
	cpuForm   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
)

// Words for people.
const (
	boardLimit    = "q35, a version of it such as pc-q35-7.2, or microvm"
	firmwareLimit = "bios, uefi or uefi-secure-boot"
	cpuLimit      = "x86-64-v2, x86-64-v3, host, max, or a model of QEMU's"
)

// OrDefault fills in what a new VM gets.
func (h Hardware) OrDefault() Hardware {
	return Hardware{Type: MachineQ35, CPU: CPUBaseline2, Firmware: FirmwareBIOS}.With(h)
}

// With gives the hardware with what a change says. A board that is not a version
// takes any version that there is.
func (h Hardware) With(change Hardware) Hardware {
	if change.Type != "" && !(change.Type == MachineQ35 && IsQ35(h.Type)) {
		h.Type = change.Type
	}
	if change.Firmware != "" {
		h.Firmware = change.Firmware
	}
	if change.CPU != "" {
		h.CPU = change.CPU
	}
	return h
}

// IsQ35 tells whether a type is that board, of any version.
func IsQ35(board string) bool {
	return board == MachineQ35 || strings.HasPrefix(board, "pc-q35-")
}

// ValidBoard tells whether a type of board can be one of ours.
func ValidBoard(board string) bool { return boardForm.MatchString(board) }

// ValidFirmware tells whether a text is one of ours.
func ValidFirmware(kind string) bool {
	return kind == FirmwareBIOS || kind == FirmwareUEFI || kind == FirmwareSecure
}

// ValidCPU tells whether a text can be the model of a processor.
func ValidCPU(model string) bool { return cpuForm.MatchString(model) }

func (v *validation) hardware(at string, h Hardware) {
	if h.Type != "" && !ValidBoard(h.Type) {
		v.refuse(errs.InvalidField, at+"/type", "is not a type of machine: "+boardLimit, boardLimit, h.Type)
	}
	if h.CPU != "" && !ValidCPU(h.CPU) {
		v.refuse(errs.InvalidField, at+"/cpu", "is not a model of a processor: "+cpuLimit, cpuLimit, h.CPU)
	}
	if h.Firmware != "" && !ValidFirmware(h.Firmware) {
		v.refuse(errs.InvalidField, at+"/firmware", "must be "+firmwareLimit, firmwareLimit, h.Firmware)
	}
	if why := h.contradicts(); why != "" {
		v.refuse(errs.InvalidField, at+"/firmware", why, FirmwareBIOS, h.Firmware)
	}
}

// contradicts says which part of the hardware another cannot have; empty where all fit.
func (h Hardware) contradicts() string {
	if h.Type == MachineMicro && h.Firmware != "" && h.Firmware != FirmwareBIOS {
		return "is not for " + MachineMicro + ", which has no flash for it: take a q35 machine, or " + FirmwareBIOS
	}
	return ""
}

// MicroSlots is how many disks and network interfaces a microvm has room for: QEMU gives
// the board 24 places, of which devices that every machine has take some.
const MicroSlots = 16

// CannotStart says why a guest of such hardware does not get past its own start where
// guests are accelerated so; empty where it does.
func CannotStart(h Hardware, acceleration string) string {
	if h.Firmware == FirmwareSecure && h.CPU == CPUMax && acceleration == "tcg" {
		return "emulates processors, and Linux with secure boot does not start on its emulated CPU model max: take " + CPUBaseline2
	}
	return ""
}

// slots refuses more disks and interfaces than the board has room for.
func (v *validation) slots(s Spec) {
	if s.Hardware.Type != MachineMicro || len(s.Disks)+len(s.NICs) <= MicroSlots {
		return
	}
	v.refuse(errs.OutOfRange, "/disks", "and network interfaces are more than a microvm has room for", strconv.Itoa(MicroSlots), strconv.Itoa(len(s.Disks)+len(s.NICs)))
}
