package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/agent/daemon"
	"github.com/novacron/novacron/internal/cli/local"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/pglocal"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// What a machine should have.
const (
	leastShm  = 256 * unit.MiB
	leastDisk = 2 * unit.GiB
	// fullPercent is how full a disk may be before it is worth a word.
	fullPercent = 90
)

// examineHost looks at this machine.
func (a *app) examineHost(ctx context.Context) []finding {
	return examine(ctx, checkPostgres, checkQEMU, checkKVM, checkPasst, checkFirmware, checkCgroups, checkShm, a.checkData, checkUser, checkClock, a.checkLeftovers)
}

func checkPostgres(ctx context.Context) []finding {
	const check = "PostgreSQL"
	bin, err := pglocal.Find(ctx, "", 0)
	if err != nil {
		return []finding{warn(check, "apt install postgresql (Debian, Ubuntu), or use --database", "%s; 'novacron up' needs it, unless it is given a database", publicError(err).Detail)}
	}
	return []finding{fine(check, "version %d in %s", bin.Major, bin.Dir)}
}

func checkQEMU(ctx context.Context) []finding {
	const check, remedy = "QEMU", "apt install qemu-system-x86 (Debian, Ubuntu)"
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return []finding{warn(check, remedy, "qemu-system-x86_64 is not in PATH: this machine can be no node")}
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return []finding{bad(check, remedy, "%s does not run: %v", path, err)}
	}
	version, _, _ := strings.Cut(string(out), "\n")
	return []finding{fine(check, "%s", strings.TrimPrefix(version, "QEMU emulator "))}
}

func checkKVM(context.Context) []finding {
	const check = "KVM"
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []finding{warn(check, "turn on virtualization in the firmware, or nested virtualization where this is a VM; modprobe kvm_intel or kvm_amd",
			"there is no /dev/kvm: guests run under TCG, which is slow and no isolation boundary")}
	case errors.Is(err, fs.ErrPermission):
		return []finding{warn(check, "run agents as root, or add the user to the group kvm", "/dev/kvm may not be opened by this user")}
	case err != nil:
		return []finding{warn(check, "look at the kernel's log", "/dev/kvm cannot be opened: %v", err)}
	}
	_ = f.Close()
	return []finding{fine(check, "/dev/kvm opens; whether guests run is proved by the agent and shown by 'novacron node show'")}
}

func checkPasst(context.Context) []finding {
	const check = "passt"
	path, err := exec.LookPath("passt")
	if err != nil {
		return []finding{warn(check, "apt install passt (Debian, Ubuntu), and restart the agent",
			"passt is not in PATH: hypervisors stay in the host's network, and guests in user-mode networks reach what listens on its loopback")}
	}
	return []finding{fine(check, "%s", path)}
}

func checkFirmware(context.Context) []finding {
	const check = "UEFI"
	has := daemon.HostFirmware()
	for _, kind := range []string{vm.FirmwareUEFI, vm.FirmwareSecure} {
		if !slices.Contains(has, kind) {
			return []finding{warn(check, "apt install ovmf (Debian, Ubuntu), and restart the agent", "there is no firmware %s: no guest that wants it starts here", kind)}
		}
	}
	return []finding{fine(check, "guests start by %s", strings.Join(has, ", "))}
}

// checkCgroups looks for what an agent limits guests by. Whether it may is seen by the
// agent, and shown by 'novacron node show'.
func checkCgroups(context.Context) []finding {
	const check, remedy = "cgroups", "mount them, and turn on these controllers at the kernel's command line"
	one, _ := os.ReadFile("/proc/cgroups")
	two, _ := os.ReadFile("/sys/fs/cgroup/cgroup.controllers") // newer kernels name those of version 2 here alone
	off := controllersOff(string(one), string(two))
	if len(off) > 0 {
		return []finding{warn(check, remedy, "this kernel does not offer the controllers %s: guests are not limited by them", strings.Join(off, ", "))}
	}
	return []finding{fine(check, "cpu, memory and pids are turned on")}
}

// controllersOff gives the wanted ones that neither version has.
func controllersOff(one, two string) (off []string) {
	on := strings.Fields(two)
	for line := range strings.Lines(one) {
		if f := strings.Fields(line); len(f) == 4 && f[3] == "1" {
			on = append(on, f[0])
		}
	}
	for _, want := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(on, want) {
			off = append(off, want)
		}
	}
	return off
}

func checkShm(context.Context) []finding {
	const check = "guest memory"
	var st unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &st); err != nil {
		return []finding{bad(check, "mount -t tmpfs tmpfs /dev/shm", "there is no /dev/shm, where guests' memory lies")}
	}
	free, total := int64(st.Bavail)*st.Bsize, int64(st.Blocks)*st.Bsize
	if free < leastShm {
		return []finding{bad(check, "stop guests, or enlarge it: mount -o remount,size=90% /dev/shm", "/dev/shm has %s free of %s: no guest can start", unit.FormatBytes(free), unit.FormatBytes(total))}
	}
	return []finding{fine(check, "/dev/shm has %s free of %s", unit.FormatBytes(free), unit.FormatBytes(total))}
}

// checkData looks at the disk of the instance's data, or of where it would be.
func (a *app) checkData(context.Context) []finding {
	const check = "disk"
	p, err := a.paths("")
	if err != nil {
		return nil
	}
	dir := p.Data
	for dir != "/" {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return []finding{bad(check, "look at the disk", "%s cannot be looked at: %v", dir, err)}
	}
	free, total := int64(st.Bavail)*st.Bsize, int64(st.Blocks)*st.Bsize
	used := 100 - free*100/max(total, 1)
	remedy := "remove images and virtual machines that nobody needs, or put --data-dir on a larger disk"
	switch {
	case free < leastDisk:
		return []finding{bad(check, remedy, "the disk of %s has %s free of %s", p.Data, unit.FormatBytes(free), unit.FormatBytes(total))}
	case used > fullPercent:
		return []finding{warn(check, remedy, "the disk of %s is %d %% full", p.Data, used)}
	}
	return []finding{fine(check, "the disk of %s has %s free of %s", p.Data, unit.FormatBytes(free), unit.FormatBytes(total))}
}

func checkUser(context.Context) []finding {
	const check = "system user"
	if os.Geteuid() != 0 {
		return []finding{warn(check, "run NovaCron as root for full confinement", "as another user than root all guests share that user, without cgroups of their own")}
	}
	if _, err := user.Lookup(local.SystemUser); err != nil {
		return []finding{bad(check, "scripts/setup, or: "+local.UserAdd, "the user %s does not exist; as root, 'novacron up' runs PostgreSQL and the server as that user", local.SystemUser)}
	}
	return []finding{fine(check, "%s exists", local.SystemUser)}
}

// checkClock asks the kernel whether somebody keeps the clock right: certificates
// are the one thing that depends on it.
func checkClock(context.Context) []finding {
	const check = "clock"
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return nil // not told, nothing to say
	}
	if t.Status&unix.STA_UNSYNC != 0 {
		return []finding{warn(check, "apt install systemd-timesyncd or chrony", "nothing keeps the clock right; leases do not mind, certificates do")}
	}
	return []finding{fine(check, "is kept right")}
}

// checkLeftovers looks for guests that run although nothing supervises them.
func (a *app) checkLeftovers(context.Context) []finding {
	const check = "guests"
	p, err := a.paths("")
	if err != nil {
		return nil
	}
	if _, _, running, err := local.Running(p); err != nil || running {
		return nil
	}
	if left := local.Leftovers(p); len(left) > 0 {
		return []finding{warn(check, "'novacron up --detach' adopts them", "%d guests of %s run, and no instance does", len(left), p.Data)}
	}
	return nil
}
