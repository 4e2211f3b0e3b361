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
