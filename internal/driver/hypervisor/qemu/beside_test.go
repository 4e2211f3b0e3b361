package qemu_test

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// ownFirmware is a BIOS that says so and halts.
func ownFirmware(says string) []byte {
	const size, reset, code = 256 << 10, 256<<10 - 16, 256<<10 - 256
	b := make([]byte, size)
	copy(b[reset:], []byte{0xe9, 0x0d, 0xff}) // jmp code
	b = append(b[:code], append(saying(says), b[code+len(saying(says)):]...)...)
	return b
}

// saying is code of real mode that writes a text to the first serial port and halts.
func saying(text string) []byte {
	code := []byte{0xba, 0xf8, 0x03}
	for _, c := range []byte(text) {
		code = append(code, 0xb0, c, 0xee)
	}
	return append(code, 0xfa, 0xf4, 0xeb, 0xfd)
}

// A QEMU under a prefix of its own runs guests with the firmware and the modules that lie
// beside it, also in their jail.
func TestFirmwareBesideQEMU(t *testing.T) {
	h := newHarness(t, nil)
	installed, err := exec.LookPath(cmp.Or(h.opt.Binary, "qemu-system-x86_64"))
	if err != nil {
		t.Fatal(err)
	}
	prefix := filepath.Join(h.dir, "prefix")
	const firmware, modules = "share/seabios", "lib/x86_64-linux-gnu/qemu"
	for _, dir := range []string{"bin", firmware, modules} {
		if err := os.MkdirAll(filepath.Join(prefix, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.opt.Binary = filepath.Join(prefix, "bin", "qemu-system-x86_64")
	copyFile(t, installed, h.opt.Binary)
	emulation, _ := filepath.Glob(filepath.Join("/usr", modules, "accel-tcg-*.so"))
	for _, file := range emulation { // none where it is no module
		copyFile(t, file, filepath.Join(prefix, modules, filepath.Base(file)))
	}
	if err := os.WriteFile(filepath.Join(prefix, firmware, "bios-256k.bin"), ownFirmware("own firmware\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.Away(t, nil)
	m := h.machine(t, append([]byte(nil), benchSector...))
	h.launch(t, m)
	h.readLog(t, m, "own firmware")
}
