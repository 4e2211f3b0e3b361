package daemon

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/tap"
	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// hostReserve is the memory kept from VMs for the host itself: an eighth, and at
// least 512 MiB, but never more than 4 GiB.
func hostReserve(total int64) int64 {
	return min(max(total/8, 512*unit.MiB), 4*unit.GiB)
}

// inventory reads the host from /proc and /sys; ramDir is
// where guest memory lies, share how many agents divide the host.
func inventory(ctx context.Context, d hypervisor.Driver, v volume.Driver, ramDir string, share int) (nodelink.Inventory, error) {
	share = max(share, 1)
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nodelink.Inventory{}, errs.New(errs.HostFailure, "the host does not tell its kernel").Because(err)
	}
	about, err := d.Describe(ctx)
	if err != nil {
		return nodelink.Inventory{}, err
	}
	usage, err := v.Usage(ctx)
	if err != nil {
		return nodelink.Inventory{}, err
	}
	total := memTotal()
	return nodelink.Inventory{
		Hostname:           unix.ByteSliceToString(u.Nodename[:]),
		Kernel:             unix.ByteSliceToString(u.Release[:]),
		OS:                 keyFrom("/etc/os-release", "PRETTY_NAME", "="),
		CPUModel:           keyFrom("/proc/cpuinfo", "model name", ":"),
		CPUs:               max(runtime.NumCPU()/share, 1),
		MemoryBytes:        guestMemory(total, ramDir) / int64(share),
		NUMA:               numa("/sys/devices/system/node"),
		Disks:              disks("/sys/block"),
		HugePages:          hugePages("/sys/kernel/mm/hugepages"),
		PCI:                pciDevices("/sys/bus/pci/devices"),
		Interfaces:         interfaces("/sys/class/net"),
		Bridges:            bridges(tap.Bridges(), d.Capabilities().Bridges),
		Hypervisor:         about.Hypervisor,
		HypervisorVersion:  about.Version,
		Acceleration:       about.Acceleration.Kind,
		AccelerationReason: about.Acceleration.Reason,
		MachineTypes:       about.Machines,
		CPUModels:          about.CPUs,
		Firmware:           about.Firmware,
		LiveMigration:      d.Capabilities().Migrate,
		WarmMigration:      d.Capabilities().Warm,
		CPUFlags:           keyFrom("/proc/cpuinfo", "flags", ":"),
		Confinement:        d.Capabilities().Confinement,
		Unconfined:         d.Capabilities().Unconfined,
		Limits:             limits(d.Capabilities()),
		StorageBytes:       usage.TotalBytes / int64(share),
	}, nil
}

// limits names what a driver can limit guests by.
func limits(c hypervisor.Capabilities) (kinds []string) {
	for _, k := range []struct {
		can  bool
		kind string
	}{{c.CPUWeight, vm.LimitCPUWeight}, {c.CPUCap, vm.LimitCPUCap}, {c.DiskLimits, vm.LimitDiskIO}} {
		if k.can {
			kinds = append(kinds, k.kind)
		}
	}
	return kinds
}

// bridges tells which of the host's bridges guests may join.
func bridges(all, allowed []string) (out []nodelink.Bridge) {
	for _, b := range all {
		out = append(out, nodelink.Bridge{Name: b, Allowed: slices.Contains(allowed, b)})
	}
	return out
}

// guestMemory is what the host has for guests: its memory but for the reserve, and
// no more than the tmpfs that guest memory lies in may grow to.
func guestMemory(total int64, ramDir string) int64 {
	memory := total - hostReserve(total)
	if ramDir == "" {
		ramDir = "/dev/shm"
	}
	for ramDir != "/" && ramDir != "." {
		var fs unix.Statfs_t
		if unix.Statfs(ramDir, &fs) == nil {
			return min(memory, int64(fs.Blocks)*fs.Bsize)
		}
		ramDir = filepath.Dir(ramDir) // the driver has not made it yet
	}
	return memory
}

// bootID names this boot of the host (Linux makes it anew each time).
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", errs.New(errs.HostFailure, "the host does not tell its boot id").Because(err)
	}
	return strings.TrimSpace(string(b)), nil
}

func memTotal() int64 {
	kib, err := strconv.ParseInt(strings.TrimSuffix(keyFrom("/proc/meminfo", "MemTotal", ":"), " kB"), 10, 64)
	if err != nil {
		return 0
	}
	return kib * unit.KiB
}

// keyFrom finds the first "key<sep>value" line of a small text file.
func keyFrom(path, key, sep string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		k, v, ok := strings.Cut(sc.Text(), sep)
		if ok && strings.TrimSpace(k) == key {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return ""
}

func numa(root string) (out []nodelink.NUMANode) {
	dirs, err := filepath.Glob(filepath.Join(root, "node[0-9]*"))
	if err != nil {
		return nil
	}
	for _, d := range dirs {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(d), "node"))
		if err != nil {
			continue
		}
		kib := keyFrom(filepath.Join(d, "meminfo"), "Node "+strconv.Itoa(n)+" MemTotal", ":")
		mem, err := strconv.ParseInt(strings.TrimSuffix(kib, " kB"), 10, 64)
		if err != nil {
			mem = 0
		}
		out = append(out, nodelink.NUMANode{ID: n, CPUs: text(filepath.Join(d, "cpulist")), MemoryBytes: mem * unit.KiB})
	}
	return out
}

// sectorBytes is the unit of /sys/block/*/size, whatever the device's own is.
const sectorBytes = 512

func disks(root string) (out []nodelink.Disk) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		d := filepath.Join(root, e.Name())
		sectors, err := strconv.ParseInt(text(filepath.Join(d, "size")), 10, 64)
		if err != nil || sectors == 0 || virtual(e.Name()) {
			continue
		}
		out = append(out, nodelink.Disk{
			Name: e.Name(), Model: text(filepath.Join(d, "device/model")),
			SizeBytes: sectors * sectorBytes, Rotational: text(filepath.Join(d, "queue/rotational")) == "1",
		})
	}
	return out
}

func virtual(name string) bool {
	for _, p := range []string{"loop", "ram", "zram", "sr", "fd", "nbd"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

func text(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
