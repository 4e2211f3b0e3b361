package qemu

import (
	"slices"
	"testing"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func TestBoardsAreNewestFirst(t *testing.T) {
	got := boards([]string{"pc-q35-9.2", "q35", "pc-q35-10.1", "pc-q35-2.12", "pc-i440fx-11.0", "pc-q35-4.0.1", "pc-q35-4.0", "none"})
	if want := []string{"pc-q35-10.1", "pc-q35-9.2", "pc-q35-4.0.1", "pc-q35-4.0", "pc-q35-2.12"}; !slices.Equal(got, want) {
		t.Fatalf("got %q", got)
	}
	if got := boards([]string{"microvm", "pc-q35-x"}); len(got) > 0 {
		t.Fatalf("got %q", got)
	}
}

func TestProcessorsAreWhole(t *testing.T) {
	defs := []definition{
		{Name: "base"},
		{Name: "max"},
		{Name: "host"},
		{Name: "Westmere-v1"},
		{Name: "Old", Deprecated: true},
		{Name: "Haswell-v2", Unavailable: []string{"pcid", "invpcid"}},
		{Name: "Icelake-Server", Unavailable: []string{"avx512f"}},
		{Name: "Evil,-sse"},
	}
	if got, want := processors(defs, "tcg"), []string{"x86-64-v2", "x86-64-v3", "max", "Westmere-v1"}; !slices.Equal(got, want) {
		t.Errorf("under tcg: %q", got)
	}
	// hardware that lacks a part of it does not have it
	if got, want := processors(defs, "kvm"), []string{"x86-64-v2", "host", "max", "Westmere-v1"}; !slices.Equal(got, want) {
		t.Errorf("under kvm: %q", got)
	}
	defs[5].Unavailable = []string{"avx2"}
	if got := processors(defs, "tcg"); slices.Contains(got, "x86-64-v3") {
		t.Errorf("level 3 without AVX2: %q", got)
	}
}

func TestWhatQEMUIsTold(t *testing.T) {
	for _, c := range []struct{ model, accel, want string }{
		{"", "kvm", "host"},
		{"", "tcg", "max"},
		{"host", "kvm", "host"},
		{"max", "tcg", "max"},
		{"x86-64-v2", "kvm", "Westmere-v1,enforce"},
		{"x86-64-v3", "kvm", "Haswell-v2,enforce"},
		{"x86-64-v3", "tcg", "Haswell-v2,-pcid,-x2apic,-tsc-deadline,-invpcid,enforce"},
		{"EPYC-v3", "kvm", "EPYC-v3,enforce"},
	} {
		if got := cpuOption(c.model, c.accel); got != c.want {
			t.Errorf("%q under %s: %q, want %q", c.model, c.accel, got, c.want)
		}
	}
}

func TestHostsFitMachines(t *testing.T) {
	h := hostRecord{Version: "7.2.1", Accel: "tcg", models: models{Machines: []string{"pc-q35-7.2", "pc-q35-6.2", "microvm"}, CPUs: []string{"x86-64-v2", "max"}}}
	for _, c := range []struct {
		board, cpu, gets string
		refused          string
	}{
		{"", "", "pc-q35-7.2", ""},
		{"q35", "max", "pc-q35-7.2", ""},
		{"pc-q35-6.2", "x86-64-v2", "pc-q35-6.2", ""},
		{"pc-q35-9.0", "", "", "QEMU 7.2.1 of this node has no machine type pc-q35-9.0: it has pc-q35-6.2 to pc-q35-7.2, and microvm"},
		{"microvm", "max", "microvm", ""},
		{"", "host", "", "this node cannot give its own processor (CPU model host) to guests: they run under tcg"},
		{"", "EPYC", "", "this node does not offer CPU model EPYC under tcg"},
	} {
		rec, err := h.fit(machineRecord{Machine: contract.Machine{Type: c.board, CPU: c.cpu}, Accel: "tcg"})
		if c.refused != "" {
			if !errs.Is(err, errs.Unsupported) || errs.As(err).Message != c.refused {
				t.Errorf("%+v: %v", c, err)
			}
		} else if err != nil || rec.Type != c.gets {
			t.Errorf("%+v: %+v, %v", c, rec, err)
		}
	}
}
