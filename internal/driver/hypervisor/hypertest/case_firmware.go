package hypertest

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func firmwareCases() []testCase {
	return []testCase{
		{"Firmware keeps its variables in the machine's file", keepsVariables},
		{"Launch refuses impossible firmware", refusesFirmware},
	}
}

func keepsVariables(b *bench) {
	about, err := b.Driver().Describe(b.ctx)
	if err != nil || len(about.Firmware) == 0 || about.Firmware[0] != vm.FirmwareBIOS {
		b.Fatalf("the host says it has firmware %q, %v", about.Firmware, err)
	}
	dir := ShortDir(b.T)
	for _, kind := range []string{vm.FirmwareUEFI, vm.FirmwareSecure} {
		m := b.Machine(b.T, Polite)
		m.Firmware, m.Variables = kind, filepath.Join(dir, kind)
		if !slices.Contains(about.Firmware, kind) {
			_, err := b.Driver().Launch(b.ctx, m)
			b.wantCode(err, errs.Unsupported, kind+", which the host does not have")
			continue
		}
		b.keeps(m)
	}
}

// keeps starts a machine twice, and looks whether the second time finds what the
// first has left.
func (b *bench) keeps(m contract.Machine) {
	b.Helper()
	b.start(m)
	b.kill(m.Ref)
	kept, err := os.ReadFile(m.Variables)
	if err != nil || len(kept) == 0 {
		b.Fatalf("%s: %d bytes of variables, %v", m.Firmware, len(kept), err)
	}
	// the end of the file, which no firmware touches as early as this
	kept[len(kept)-1] ^= 0x5a
	if err := os.WriteFile(m.Variables, kept, 0o600); err != nil { //nolint:gosec // a file of the test itself
		b.Fatal(err)
	}
	m.Epoch++
	b.start(m)
	b.kill(m.Ref)
	if again, err := os.ReadFile(m.Variables); err != nil || len(again) != len(kept) || !bytes.Equal(again[len(again)-1:], kept[len(kept)-1:]) {
		b.Errorf("%s: the variables were made anew: %d bytes of %d, %v", m.Firmware, len(again), len(kept), err)
	}
	b.clean(m)
}

func refusesFirmware(b *bench) {
	for what, c := range map[string][2]string{
		"no firmware of ours":    {"coreboot", "/v/variables"},
		"variables of BIOS":      {vm.FirmwareBIOS, "/v/variables"},
		"UEFI without variables": {vm.FirmwareUEFI, ""},
		"a relative path":        {vm.FirmwareUEFI, "variables"},
	} {
		m := b.Machine(b.T, Polite)
		m.Firmware, m.Variables = c[0], c[1]
		_, err := b.Driver().Launch(b.ctx, m)
		b.wantCode(err, errs.InvalidField, what)
	}
	b.clean()
}
