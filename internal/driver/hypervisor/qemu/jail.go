package qemu

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/tap"
	"github.com/novacron/novacron/internal/driver/jail"
)

// dataFolders are where distributions keep what QEMU reads beside its libraries:
// firmware and option ROMs. Those that are there are shown.
var dataFolders = []string{
	"/usr/share/qemu", "/usr/share/seabios", "/usr/lib/ipxe", "/usr/share/ipxe",
	"/usr/share/OVMF", "/usr/share/ovmf", "/usr/share/edk2", "/usr/share/qemu-efi",
}

// Where things of the VM's own are in its jail.
const (
	jailRAM    = "/vm/ram"
	jailRun    = "/vm/run"
	jailKernel = "/vm/kernel"
	jailInitrd = "/vm/initrd"
)

// walls are what can stand around the processes of this node's guests.
type walls struct {
	spec *jail.Spec // nil: none
	// passt is the program that is the user-mode network outside the jail; without
	// it, QEMU is that itself, and then in the host's network.
	passt string
	// missing says what is not there, and why, for people.
	missing []string
}

func (o *Options) jailRoot() string { return filepath.Join(o.RunDir, o.NodeShort, "root") }
func (o *Options) jailNet() string  { return filepath.Join(o.RunDir, o.NodeShort, "net") }

// openJail finds out what this host allows, by trying it.
func (o *Options) openJail(ctx context.Context, f firmwares) walls {
	var w walls
	if os.Getuid() != 0 {
		w.missing = []string{lacksRoot + ": the agent does not run as root"}
		return w
	}
	w.passt, _ = exec.LookPath("passt")
	spec, err := o.jailSpec(f)
	if err == nil {
		err = keeper.TryJail(ctx, o.Program, spec)
	}
	if err != nil {
		o.Logger.Warn("guests' hypervisors get no jail", "error", err)
		w.passt = ""
		w.missing = []string{lacksJail + ": " + err.Error()}
		return w
	}
	w.spec = spec
	if w.passt == "" {
		w.missing = append(w.missing, lacksNet+": the program passt is not installed")
		return w
	}
	if err := jail.MakeNet(o.jailNet()); err != nil {
		o.Logger.Warn("guests' hypervisors get no network of their own", "error", err)
		w.passt = ""
		w.missing = append(w.missing, lacksNet+": "+err.Error())
		return w
	}
	spec.Net = o.jailNet()
	return w
}

// jailSpec says what QEMU needs to see.
func (o *Options) jailSpec(f firmwares) (*jail.Spec, error) {
	if err := os.MkdirAll(o.jailRoot(), 0o700); err != nil {
		return nil, err
	}
	spec := &jail.Spec{At: o.jailRoot(), Devices: []string{"/dev/null"}}
	if err := spec.Show(o.Binary); err != nil {
		return nil, err
	}
	for _, dir := range slices.Concat(dataFolders, beside(o.Binary, firmwareBeside), beside(o.Binary, modulesBeside)) {
		if err := spec.ShowPath(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	for _, b := range f {
		if err := spec.ShowPath(b.Mapping.Executable.Filename); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat("/dev/kvm"); err == nil && o.Accel != "tcg" {
		spec.Devices = append(spec.Devices, "/dev/kvm")
	}
	return spec, nil
}

// closeJail takes away what no guest uses.
func (o *Options) closeJail() {
	if os.Getuid() == 0 && len(strays(filepath.Join(o.RunDir, o.NodeShort))) == 0 {
		if err := jail.RemoveNet(o.jailNet()); err != nil {
			o.Logger.Warn("the network of the node's hypervisors could not be removed", "error", err)
		}
		_ = os.Remove(o.jailRoot())
	}
}

// Clear removes what a node's driver that was killed keeps between its guests. No
// guest of the node may run any more.
func Clear(ctx context.Context, runDir, node string) error {
	o := Options{RunDir: runDir, NodeShort: node}
	if tap.Usable() == nil {
		if err := tap.RemoveTable(ctx, tap.Table(node)); err != nil {
			return err
		}
	}
	return jail.RemoveNet(o.jailNet())
}

// inJail says what of the VM is shown in its jail, and where it then is.
func (g *guest) inJail(on *shape) []jail.Bind {
	binds := []jail.Bind{
		{From: g.at.ram, To: jailRAM, Write: true},
		{From: g.at.inside(), To: jailRun, Write: true},
	}
	on.ram, on.inside = jailRAM, jailRun
	if on.kernel != "" {
		binds = append(binds, jail.Bind{From: on.kernel, To: jailKernel})
		on.kernel = jailKernel
	}
	if on.initrd != "" {
		binds = append(binds, jail.Bind{From: on.initrd, To: jailInitrd})
		on.initrd = jailInitrd
	}
	return binds
}

// deviceGroups are the groups that may use the devices of an accelerator.
func deviceGroups(accel string) []int {
	var s unix.Stat_t
	const forOthers, forGroup = 0o006, 0o060
	if accel != "kvm" || unix.Stat("/dev/kvm", &s) != nil || s.Mode&forOthers == forOthers || s.Mode&forGroup != forGroup {
		return nil
	}
	return []int{int(s.Gid)}
}
