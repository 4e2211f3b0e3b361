package qemu_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// microClock tells a kernel how fast its processor counts. It finds that out by itself
// under KVM, and by clocks that a microvm does not have otherwise.
const microClock = " tsc_early_khz=1000000"

// micro is a machine on a board without PCI that has one of everything.
func (h *harness) micro(t *testing.T, sizes ...int64) contract.Machine {
	t.Helper()
	m := h.linux(t)
	m.Type, m.CPU, m.Screen = vm.MachineMicro, vm.CPUBaseline2, true
	m.Boot.Cmdline += microClock
	for i, size := range sizes {
		path := filepath.Join(h.dir, "disk"+string(rune('a'+i)))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		m.Disks = append(m.Disks, contract.Disk{ID: id.New(), File: contract.File{Path: path, Format: "raw"}})
	}
	return m
}

// A Linux guest on a microvm has its disks in order, its CD, its network, and a console;
// it obeys the power button, and goes on from a saved memory.
func TestMicrovm(t *testing.T) {
	rec := hypertest.NewRecorder()
	h := newHarness(t, rec.Sink)
	ctx := hypertest.Context(t)
	m := h.micro(t, unit.MiB, 2*unit.MiB, 3*unit.MiB)
	m.CDs = []contract.CD{{ID: id.New(), File: contract.File{Path: filepath.Join(h.dir, "cd.raw"), Format: "raw"}, Private: true}}
	if err := os.WriteFile(m.CDs[0].File.Path, append([]byte("what is on a CD"), make([]byte, 8192-15)...), 0o600); err != nil {
		t.Fatal(err)
	}
	m.NICs = []contract.NIC{{ID: id.New(), MAC: "52:54:00:ab:cd:ef"}}
	sh := h.boots(ctx, t, m, "address: 10.0.2.15")
	got := sh.run("[ -b /dev/sr0 ] || sleep 3; [ -b /dev/sr0 ] || sleep 30; cat /sys/block/vd?/size; head -c 15 /dev/sr0; cat /sys/class/net/eth0/address; ls /sys/bus/acpi/devices; echo :")
	for _, want := range []string{"\n2048\r\n4096\r\n6144\r", "what is on a CD", "52:54:00:ab:cd:ef", "QEMU0001"} {
		if !strings.Contains(got, want) {
			t.Errorf("the guest says %q, without %q", got, want)
		}
	}
	if got := sh.run("ls /sys/bus/pci/devices | wc -l"); !strings.Contains(got, "\n0\r") {
		t.Errorf("devices on a bus that is not there: %q", got)
	}
	if _, err := h.driver.Screenshot(ctx, m.Ref); !errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "serial console") {
		t.Errorf("a picture of what has no screen: %v", err)
	}
	sh.run("echo remembered >/tmp/word")
	m.Incoming, m.Epoch = filepath.Join(h.dir, "memory"), m.Epoch+1
	if _, err := h.driver.Suspend(ctx, contract.Ref{VM: m.VM, Epoch: m.Epoch - 1}, m.Incoming); err != nil {
		t.Fatal(err)
	}
	h.goesOn(ctx, t, m)
	if err := h.driver.Shutdown(ctx, m.Ref); err != nil {
		t.Fatal(err)
	}
	s := rec.Await(t, m.VM, "the end", func(s contract.Status) bool { return s.Epoch == m.Epoch && !s.Phase.OnNode() })
	if s.Phase != vm.PhaseExited || s.Reason != "guest shut down on request" {
		t.Errorf("the guest ended as %+v", s)
	}
}

// goesOn launches a guest from its saved memory.
func (h *harness) goesOn(ctx context.Context, t *testing.T, m contract.Machine) {
	t.Helper()
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	c, err := h.driver.Console(ctx, m.Ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if got := (shell{t, c}).run("cat /tmp/word"); !strings.Contains(got, "remembered") {
		t.Errorf("the guest remembers %q", got)
	}
}

// A microvm has as many disks and interfaces as it is said to have room for.
func TestMicrovmIsFull(t *testing.T) {
	h := newHarness(t, func(contract.Status) {})
	ctx := hypertest.Context(t)
	m := h.micro(t, slices.Repeat([]int64{unit.MiB}, vm.MicroSlots)...)
	m.CDs = []contract.CD{{ID: id.New(), File: m.Disks[0].File}}
	m.CDs[0].File.Path += ".cd"
	if err := os.WriteFile(m.CDs[0].File.Path, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Drive = true
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	over := h.micro(t, slices.Repeat([]int64{unit.MiB}, vm.MicroSlots+1)...)
	if _, err := h.driver.Launch(ctx, over); !errs.Is(err, errs.Unsupported) {
		t.Errorf("one more: %v", err)
	}
	flash := h.micro(t)
	flash.Firmware, flash.Variables = vm.FirmwareUEFI, filepath.Join(h.dir, "variables")
	if _, err := h.driver.Launch(ctx, flash); !errs.Is(err, errs.Unsupported) {
		t.Errorf("UEFI: %v", err)
	}
	if _, err := os.Stat(flash.Variables); err == nil {
		t.Error("its variables were made")
	}
}
