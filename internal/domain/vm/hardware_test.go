package vm

import (
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
)

func TestHardwareOfASpec(t *testing.T) {
	for _, c := range []struct {
		hw Hardware
		at string
	}{
		{Hardware{}, ""},
		{Hardware{Type: "q35", CPU: "host"}, ""},
		{Hardware{Type: "pc-q35-10.2", CPU: "Skylake-Client-noTSX-IBRS"}, ""},
		{Hardware{Type: "pc-q35-4.0.1", CPU: "Opteron_G3"}, ""},
		{Hardware{Type: "pc-i440fx-7.2"}, "/machine/type"},
		{Hardware{Type: "q35,usb=on"}, "/machine/type"},
		{Hardware{Type: "pc-q35-7.2\n"}, "/machine/type"},
		{Hardware{CPU: "max,-sse2"}, "/machine/cpu"},
		{Hardware{CPU: "-help"}, "/machine/cpu"},
		{Hardware{Firmware: "uefi-secure-boot"}, ""},
		{Hardware{Firmware: "UEFI"}, "/machine/firmware"},
		{Hardware{CPU: "max "}, "/machine/cpu"},
		{Hardware{Type: "microvm"}, ""},
		{Hardware{Type: "microvm", Firmware: "bios"}, ""},
		{Hardware{Type: "microvm", Firmware: "uefi"}, "/machine/firmware"},
		{Hardware{Type: "microvm-7.2"}, "/machine/type"},
	} {
		err := Spec{Name: "a", CPUs: 1, MemoryBytes: MinMemory, Hardware: c.hw}.Validate()
		if c.at == "" && err == nil {
			continue
		}
		if c.at == "" || !errs.Is(err, errs.InvalidField) || errs.As(err).Fields[0].Pointer != c.at {
			t.Errorf("%+v: %v", c.hw, err)
		}
	}
}

func TestHardwareWithAChange(t *testing.T) {
	is := Hardware{Type: "pc-q35-7.2", CPU: "max"}
	for _, c := range []struct{ change, want Hardware }{
		{Hardware{}, is},
		{Hardware{Type: "q35"}, is},
		{Hardware{Type: "pc-q35-8.2"}, Hardware{Type: "pc-q35-8.2", CPU: "max"}},
		{Hardware{CPU: "host"}, Hardware{Type: "pc-q35-7.2", CPU: "host"}},
	} {
		if got := is.With(c.change); got != c.want {
			t.Errorf("with %+v: %+v", c.change, got)
		}
	}
	if got := (Hardware{}).OrDefault(); got != (Hardware{Type: "q35", CPU: "x86-64-v2", Firmware: "bios"}) {
		t.Errorf("by default %+v", got)
	}
}

// A microvm has no UEFI, and so many places, whichever of the two comes first.
func TestMicrovmHasItsBounds(t *testing.T) {
	disks, micro := make([]DiskSpec, 9), Hardware{Type: MachineMicro}
	for i := range disks {
		disks[i].SizeBytes = MinDisk
	}
	s := Spec{Name: "a", CPUs: 1, MemoryBytes: MinMemory, Hardware: micro, Disks: disks, NICs: make([]NICSpec, 7)}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	s.NICs = make([]NICSpec, 8)
	if err := s.Validate(); !errs.Is(err, errs.OutOfRange) || errs.As(err).Fields[0].Pointer != "/disks" {
		t.Errorf("one more: %v", err)
	}
	full := View{Intent: Intent{Name: "a", Hardware: micro}, Volumes: make([]Volume, 9), NICs: make([]NIC, 7)}
	if _, err := full.FreeSlot(); !errs.Is(err, errs.OutOfRange) {
		t.Errorf("another disk: %v", err)
	}
	uefi := View{Intent: Intent{Name: "a", Hardware: Hardware{Type: "pc-q35-7.2", Firmware: FirmwareUEFI}}}
	more := View{Intent: Intent{Name: "a", Hardware: Hardware{}.OrDefault()}, Volumes: make([]Volume, 9), NICs: make([]NIC, 8)}
	for what, c := range map[string]struct {
		v  View
		to Hardware
		at string
	}{
		"keeps what it has":   {full, micro, ""},
		"UEFI to a microvm":   {uefi, micro, "/machine/firmware"},
		"both":                {uefi, Hardware{Type: MachineMicro, Firmware: FirmwareBIOS}, ""},
		"a microvm with UEFI": {full, Hardware{Firmware: FirmwareSecure}, "/machine/firmware"},
		"too many":            {more, micro, "/machine/type"},
		"back":                {full, Hardware{Type: MachineQ35, Firmware: FirmwareUEFI}, ""},
	} {
		err := Change{Hardware: c.to}.OneBoard(c.v)
		if c.at == "" && err == nil {
			continue
		}
		if c.at == "" || !errs.Is(err, errs.InvalidField) || errs.As(err).Fields[0].Pointer != c.at {
			t.Errorf("%s: %v", what, err)
		}
	}
}
