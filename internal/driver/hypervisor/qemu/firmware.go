package qemu

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Builds of UEFI firmware are described by files in these folders, as QEMU's
// docs/interop/firmware.json says: a file of a later folder takes the place of one of
// the same name in an earlier one, and of those that fit, the first by name counts.
var firmwareFolders = []string{"/usr/share/qemu/firmware", "/etc/qemu/firmware"}

// mostVariables bounds a template; the largest known one has 528 KiB.
const mostVariables = 64 << 20

// build is one build of firmware.
type build struct {
	Interfaces []string `json:"interface-types"`
	Mapping    struct {
		Device     string       `json:"device"`
		Mode       string       `json:"mode"`
		Executable firmwareFile `json:"executable"`
		Template   firmwareFile `json:"nvram-template"`
	} `json:"mapping"`
	Targets []struct {
		Architecture string   `json:"architecture"`
		Machines     []string `json:"machines"`
	} `json:"targets"`
	Features []string `json:"features"`
}

type firmwareFile struct {
	Filename string `json:"filename"`
	Format   string `json:"format"`
}

// firmwares are the builds of a host, by what they are called here.
type firmwares map[string]build

// findFirmware reads the descriptions. What cannot be read, or names files that are
// not there, is passed over.
func findFirmware(folders []string) firmwares {
	found := map[string]string{}
	for _, dir := range folders {
		files, _ := filepath.Glob(filepath.Join(dir, "*.json")) // the pattern is sound
		for _, f := range files {
			found[filepath.Base(f)] = f
		}
	}
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	out := firmwares{}
	for _, name := range names {
		var b build
		text, err := os.ReadFile(found[name])
		if err != nil || json.Unmarshal(text, &b) != nil || !b.usable() {
			continue
		}
		if kind := b.kind(); kind != "" {
			if _, earlier := out[kind]; !earlier {
				out[kind] = b
			}
		}
	}
	return out
}

// usable tells whether it is UEFI of two raw images for our boards, and is there.
func (b build) usable() bool {
	m := b.Mapping
	flash := m.Device == "flash" && (m.Mode == "" || m.Mode == "split") && m.Executable.Format == "raw" && m.Template.Format == "raw"
	if !flash || !slices.Contains(b.Interfaces, "uefi") || !b.forBoard("pc-q35-7.2") {
		return false
	}
	return there(m.Executable.Filename) && there(m.Template.Filename)
}

// there tells whether a file of firmware is.
func there(file string) bool {
	info, err := os.Stat(file)
	return filepath.IsAbs(file) && err == nil && info.Mode().IsRegular() && info.Size() <= mostVariables
}

func (b build) forBoard(board string) bool {
	for _, t := range b.Targets {
		for _, pattern := range t.Machines {
			if ok, err := path.Match(pattern, board); t.Architecture == "x86_64" && ok && err == nil {
				return true
			}
		}
	}
	return false
}

// kind is what a build is good for: with secure boot only if it knows whom to trust.
func (b build) kind() string {
	has := func(f string) bool { return slices.Contains(b.Features, f) }
	switch {
	case has("secure-boot") && has("enrolled-keys") && has("requires-smm"):
		return vm.FirmwareSecure
	case !has("enrolled-keys") && !has("requires-smm"):
		return vm.FirmwareUEFI
	default:
		return ""
	}
}

// offered lists what machines can start by.
func (f firmwares) offered() []string {
	out := []string{vm.FirmwareBIOS}
	for _, kind := range []string{vm.FirmwareUEFI, vm.FirmwareSecure} {
		if _, ok := f[kind]; ok {
			out = append(out, kind)
		}
	}
	return out
}

// of gives the firmware of a machine; the zero value where that is BIOS.
func (f firmwares) of(m contract.Machine) (build, error) {
	if !m.UEFI() {
		return build{}, nil
	}
	b, ok := f[m.Firmware]
	if !ok {
		return b, errs.New(errs.Unsupported, "this node has no firmware %s: install the package ovmf and restart its agent", m.Firmware)
	}
	for _, file := range []string{b.Mapping.Executable.Filename, b.Mapping.Template.Filename} {
		if !there(file) {
			return b, errs.New(errs.Unsupported, "the firmware %s of this node has gone: %s is not there; install the package ovmf and restart the node's agent", m.Firmware, file)
		}
	}
	return b, nil
}

// makeVariables makes the file of a machine's variables, unless it is there.
func (b build) makeVariables(file string) error {
	if file == "" {
		return nil
	}
	if _, err := os.Lstat(file); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh, err := os.ReadFile(b.Mapping.Template.Filename)
	if err == nil {
		err = durable.Replace(file, fresh, true)
	}
	if err != nil {
		return errs.New(errs.HostFailure, "the variables of the VM's firmware cannot be made").Because(err)
	}
	return nil
}

// addFirmware adds the two images of UEFI: the code, which is the host's, and the
// machine's variables.
func (w *jsonArgs) addFirmware(m contract.Machine, s shape) {
	if !m.UEFI() {
		return
	}
	w.add("-blockdev", object{"driver": "file", "node-name": "firmware-file", "filename": s.code, "read-only": true})
	w.add("-blockdev", object{"driver": "raw", "node-name": "firmware", "file": "firmware-file", "read-only": true})
	w.addImage("variables", contract.File{Path: m.Variables, Format: "raw"}, false, nil)
}

// firmwareOptions is what the board is told of it.
func firmwareOptions(m contract.Machine) (board string, others []string) {
	if !m.UEFI() {
		return "", nil
	}
	board = ",pflash0=firmware,pflash1=variables"
	if m.Firmware == vm.FirmwareSecure {
		// only code in system management mode, which is the firmware's, writes variables
		return board + ",smm=on", []string{"-global", "driver=cfi.pflash01,property=secure,value=on"}
	}
	return board, nil
}
