package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// The first description that fits counts; those of a later folder take the place of
// earlier ones; what is not for us, or not there, is passed over.
func TestFirmwareIsFound(t *testing.T) {
	vendor, local := t.TempDir(), t.TempDir()
	for _, name := range []string{"code", "vars", "other"} {
		if err := os.WriteFile(filepath.Join(vendor, name), make([]byte, 4096), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const good = `{"interface-types":["uefi"],"mapping":{"device":"flash","executable":{"filename":"DIR/code","format":"raw"},
		"nvram-template":{"filename":"DIR/vars","format":"raw"}},"targets":[{"architecture":"x86_64","machines":["pc-q35-*"]}],"features":[]}`
	write := func(dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", vendor)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, old := range map[string][2]string{
		"10-bios":      {`"uefi"`, `"bios"`},
		"11-stateless": {`"device":"flash"`, `"device":"flash","mode":"stateless"`},
		"12-arm":       {"x86_64", "aarch64"},
		"13-i440fx":    {"pc-q35-*", "pc-i440fx-*"},
		"14-qcow2":     {`"raw"`, `"qcow2"`},
		"15-gone":      {"DIR/vars", "DIR/none"},
		"16-relative":  {"DIR/code", "code"},
		"17-no-json":   {"{", "["},
		"18-untrusted": {`"features":[]`, `"features":["secure-boot","requires-smm"]`},
	} {
		write(vendor, name+".json", strings.Replace(good, old[0], old[1], 1))
	}
	if got := findFirmware([]string{vendor, local}).offered(); cmp.Diff([]string{vm.FirmwareBIOS}, got) != "" {
		t.Fatalf("of what does not fit: %q", got)
	}
	write(vendor, "50-uefi.json", good)
	write(vendor, "60-uefi.json", strings.Replace(good, "DIR/code", "DIR/other", 1))
	write(vendor, "70-secure.json", strings.Replace(good, `"features":[]`, `"features":["secure-boot","requires-smm","enrolled-keys"]`, 1))
	found := findFirmware([]string{vendor, local})
	if cmp.Diff([]string{vm.FirmwareBIOS, vm.FirmwareUEFI, vm.FirmwareSecure}, found.offered()) != "" || found[vm.FirmwareUEFI].Mapping.Executable.Filename != filepath.Join(vendor, "code") {
		t.Fatalf("%+v", found)
	}
	write(local, "50-uefi.json", "") // an administrator switches one off
	if got := findFirmware([]string{vendor, local})[vm.FirmwareUEFI].Mapping.Executable.Filename; got != filepath.Join(vendor, "other") {
		t.Errorf("with one switched off: %q", got)
	}
	if err := os.Remove(filepath.Join(vendor, "code")); err != nil {
		t.Fatal(err)
	}
	if _, err := found.of(contract.Machine{Firmware: vm.FirmwareUEFI}); !errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "install the package ovmf") {
		t.Errorf("firmware that has gone since: %v", err)
	}
	_, err := firmwares{}.of(contract.Machine{Firmware: vm.FirmwareUEFI})
	if !errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "ovmf") {
		t.Errorf("a host without: %v", err)
	}
}
