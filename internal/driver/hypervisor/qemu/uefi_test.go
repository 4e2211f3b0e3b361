package qemu_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// uefi is a machine that starts by UEFI from one of the disks that
// scripts/uefi-guest makes.
func (h *harness) uefi(t *testing.T, firmware, disk string) contract.Machine {
	if testing.Short() {
		t.Skip("firmware takes minutes of emulated processors beside the race detector: 'make test' runs it")
	}
	t.Helper()
	kernel, _ := hypertest.GuestImage(t)
	source := filepath.Join(filepath.Dir(kernel), "..", "uefi-guest", disk)
	if _, err := os.Stat(source); err != nil {
		t.Fatalf("the UEFI guest is missing: run scripts/uefi-guest: %v", err)
	}
	m := contract.Machine{
		Ref:         contract.Ref{VM: id.New(), Epoch: 1},
		CPUs:        1,
		MemoryBytes: 256 * unit.MiB,
		CPU:         vm.CPUBaseline2,
		Firmware:    firmware,
		Variables:   filepath.Join(h.dir, "variables"),
		Disks:       []contract.Disk{{ID: id.New(), File: contract.File{Path: h.share(t, source), Format: "raw"}}},
	}
	h.vms = append(h.vms, m.VM)
	return m
}

// boots launches a machine, and gives its console and the guest's shell once it has one.
func (h *harness) boots(ctx context.Context, t *testing.T, m contract.Machine, until string) shell {
	t.Helper()
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	c, err := h.driver.Console(ctx, m.Ref)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	sh := shell{t, c}
	sh.expect(until)
	return sh
}

// A guest that starts by UEFI says itself whether secure boot is on. What its firmware
// keeps is the VM's: it outlives the process byte for byte.
func TestUEFIGuests(t *testing.T) {
	for firmware, says := range map[string]string{vm.FirmwareUEFI: "Secure boot disabled", vm.FirmwareSecure: "Secure boot enabled"} {
		t.Run(firmware, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, func(contract.Status) {})
			ctx := hypertest.Context(t)
			m := h.uefi(t, firmware, "esp.raw")
			sh := h.boots(ctx, t, m, "test guest ready")
			if got := sh.run("dmesg | grep 'secureboot:'"); !strings.Contains(got, says) {
				t.Errorf("the guest says %q, want %q", got, says)
			}
			if _, err := h.driver.Kill(ctx, m.Ref); err != nil {
				t.Fatal(err)
			}
			kept, err := os.ReadFile(m.Variables)
			if err != nil || len(kept) < 64<<10 {
				t.Fatalf("%d bytes of variables, %v", len(kept), err)
			}
			// the last byte is of a spare block that no firmware reads unless it was cut off
			kept[len(kept)-1] = 0x5a
			if err := os.WriteFile(m.Variables, kept, 0o600); err != nil {
				t.Fatal(err)
			}
			m.Epoch++
			if _, err := h.driver.Launch(ctx, m); err != nil {
				t.Fatal(err)
			}
			if _, err := h.driver.Kill(ctx, m.Ref); err != nil {
				t.Fatal(err)
			}
			if again, err := os.ReadFile(m.Variables); err != nil || len(again) != len(kept) || again[len(again)-1] != 0x5a {
				t.Errorf("the variables were made anew: %d bytes, %v", len(again), err)
			}
		})
	}
}

// With secure boot, a loader that is not what was signed does not run; without, it
// does.
func TestSecureBootRefuses(t *testing.T) {
	for firmware, until := range map[string]string{vm.FirmwareUEFI: "test guest ready", vm.FirmwareSecure: "Access Denied"} {
		t.Run(firmware, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, func(contract.Status) {})
			h.boots(hypertest.Context(t), t, h.uefi(t, firmware, "broken.raw"), until)
		})
	}
}

// A suspended guest finds its firmware's variables as they were.
func TestUEFIGuestIsSuspended(t *testing.T) {
	h := newHarness(t, func(contract.Status) {})
	ctx := hypertest.Context(t)
	m := h.uefi(t, vm.FirmwareSecure, "esp.raw")
	sh := h.boots(ctx, t, m, "test guest ready")
	sh.run("echo remembered >/tmp/word")
	file := filepath.Join(h.dir, "memory")
	if _, err := h.driver.Suspend(ctx, m.Ref, file); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(m.Variables)
	if err != nil {
		t.Fatal(err)
	}
	m.Incoming, m.Epoch = file, m.Epoch+1
	if _, err := h.driver.Launch(ctx, m); err != nil {
		t.Fatal(err)
	}
	c, err := h.driver.Console(ctx, m.Ref)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := (shell{t, c}).run("cat /tmp/word"); !strings.Contains(got, "remembered") {
		t.Errorf("the guest remembers %q", got)
	}
	if after, err := os.ReadFile(m.Variables); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the variables are others: %v", err)
	}
}

// A guest moves with its firmware: what that keeps goes in the guest's memory, and is in
// the target's file once the guest executes there.
func TestUEFIGuestMoves(t *testing.T) {
	near, far := newHarness(t, nil), newHarness(t, nil)
	ctx := hypertest.Context(t)
	m := near.uefi(t, vm.FirmwareSecure, "esp.raw")
	near.boots(ctx, t, m, "test guest ready").run("echo remembered >/tmp/word")
	before, err := os.ReadFile(m.Variables)
	if err != nil {
		t.Fatal(err)
	}
	to, _ := near.movesTo(t, far, m, contract.MoveOptions{})
	c, err := far.driver.Console(ctx, to.Ref)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := (shell{t, c}).run("cat /tmp/word"); !strings.Contains(got, "remembered") {
		t.Errorf("the guest remembers %q", got)
	}
	if after, err := os.ReadFile(to.Variables); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the variables are others: %v", err)
	}
}

// What is known not to start is refused, and leaves nothing.
func TestSecureBootIsRefusedWhereItDoesNotStart(t *testing.T) {
	h := newHarness(t, func(contract.Status) {})
	ctx := hypertest.Context(t)
	m := h.uefi(t, vm.FirmwareSecure, "esp.raw")
	m.CPU = vm.CPUMax
	if _, err := h.driver.Launch(ctx, m); !errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), vm.CPUBaseline2) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(m.Variables); err == nil {
		t.Error("its variables were made")
	}
}
