package controltest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/driver/hypervisor/cgroup"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/driver/hypervisor/qemu"
	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/driver/volume/dir"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// haltSector is a boot sector that halts: cli; hlt; jmp back. It costs nothing
// while it runs, and ignores the power button.
var haltSector = append(append([]byte{0xfa, 0xf4, 0xeb, 0xfc}, make([]byte, 506)...), 0x55, 0xaa)

// sectorImage is a boot sector as a raw disk image.
func sectorImage(sector []byte) image.File {
	sum := sha256.Sum256(sector)
	return image.File{
		Role: image.RoleDisk, SHA256: hex.EncodeToString(sum[:]), SizeBytes: int64(len(sector)), Format: "raw", VirtualBytes: int64(len(sector)),
	}
}

// NewQEMU makes a cluster of n nodes whose guests are real, under software
// emulation. The test binary must be its own keeper: see keeper.Main.
func NewQEMU(tb testing.TB, n int) *Cluster {
	tb.Helper()
	return NewQEMUOf(tb, n, haltSector)
}

// NewQEMUOf is NewQEMU with guests that execute a boot sector of the test's own.
func NewQEMUOf(tb testing.TB, n int, sector []byte) *Cluster {
	tb.Helper()
	return NewOn(tb, n, sectorImage(sector), func(tb testing.TB, node id.ID, _ string) Host {
		tb.Helper()
		return newQEMUHost(tb, node, sector)
	})
}

// QEMUHost is this machine, as one node of many on it.
type QEMUHost struct {
	tb         testing.TB
	short, dir string
	volumes    *dir.Driver
	images     *agent.Cache
	base       string // what its disks stand on
}

var _ Host = (*QEMUHost)(nil)

func newQEMUHost(tb testing.TB, node id.ID, sector []byte) Host {
	tb.Helper()
	// sockets need a short path, and guests' own users go through this folder
	base, err := os.MkdirTemp("", "ncq") //nolint:usetesting // a test's own folder is too long for sockets
	must(tb, err)
	must(tb, os.Chmod(base, 0o711)) //nolint:gosec // guests' own users go through it to their disks
	h := &QEMUHost{tb: tb, short: id.Short(node), dir: base}
	// runs after the agent's own cleanup: what a test leaves running ends with it
	tb.Cleanup(h.remove)
	h.volumes, err = dir.Open(filepath.Join(base, "volumes"))
	must(tb, err)
	h.images, err = agent.OpenCache(filepath.Join(base, "images"), agent.CacheOptions{Clock: clock.System{}, Log: slog.New(slog.DiscardHandler)})
	must(tb, err)
	f := sectorImage(sector)
	h.base = f.SHA256
	must(tb, h.images.Ensure(tb.Context(), nodelink.ImageFile{SHA256: f.SHA256, SizeBytes: f.SizeBytes}, func(_ context.Context, w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(sector))
		return err
	}))
	return h
}

func (h *QEMUHost) ram() string { return filepath.Join("/dev/shm", filepath.Base(h.dir)) }

// Hypervisor implements Host.
func (h *QEMUHost) Hypervisor(s hypervisor.Sink) (hypervisor.Driver, error) {
	return qemu.New(qemu.Options{
		NodeShort: h.short, DataDir: filepath.Join(h.dir, "guests"), RunDir: filepath.Join(h.dir, "run"),
		UIDDir: filepath.Join(h.dir, "uids"), RAMDir: h.ram(), Accel: "tcg", Sink: s,
	})
}

// Crash implements Host.
func (h *QEMUHost) Crash(v id.ID) bool {
	for _, pid := range h.pids() {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		args := strings.Split(string(b), "\x00")
		if err != nil || !strings.HasPrefix(filepath.Base(args[0]), "qemu-system") || !slices.Contains(args, v.String()) {
			continue
		}
		p, err := process.Identify(pid)
		if err != nil {
			continue
		}
		if k, err := process.Open(p); err == nil {
			_ = k.Signal(unix.SIGKILL)
			<-k.Ended()
			_ = k.Close()
			return true
		}
	}
	return false
}

// PowerLoss implements Host: every process of this host's guests is gone at once,
// and so is what lies in memory and below /run.
func (h *QEMUHost) PowerLoss() {
	for _, pid := range h.pids() {
		p, err := process.Identify(pid)
		if err != nil {
			continue
		}
		if k, err := process.Open(p); err == nil {
			_ = k.Signal(unix.SIGKILL)
			<-k.Ended()
			_ = k.Close()
		}
	}
	_ = os.RemoveAll(h.ram())
	_ = os.RemoveAll(filepath.Join(h.dir, "run"))
	_ = os.RemoveAll(filepath.Join(h.dir, "uids"))
}

// remove ends the guests and takes away all that was made for this host.
func (h *QEMUHost) remove() {
	h.PowerLoss()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	groups, err := cgroup.Open(h.short, "", clock.System{})
	if err == nil {
		err = groups.Clear(ctx)
	}
	if err != nil {
		h.tb.Errorf("the groups of a host: %v", err)
	}
	if err := qemu.Clear(ctx, filepath.Join(h.dir, "run"), h.short); err != nil {
		h.tb.Errorf("the network of a host: %v", err)
	}
	_ = os.RemoveAll(h.dir)
}

// pids are the processes that name this host's folder, and those in its groups.
func (h *QEMUHost) pids() (out []int) {
	v1, _ := filepath.Glob("/sys/fs/cgroup/*/novacron-" + h.short + "/*/*/cgroup.procs")
	v2, _ := filepath.Glob("/sys/fs/cgroup/novacron-" + h.short + "/*/*/cgroup.procs")
	for _, list := range append(v1, v2...) {
		b, _ := os.ReadFile(list)
		for f := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				out = append(out, pid)
			}
		}
	}
	for _, p := range hypertest.Processes(h.dir) {
		out = append(out, p.PID)
	}
	return out
}

// Volumes implements Host.
func (h *QEMUHost) Volumes() volume.Driver { return h.volumes }

// Images implements Host.
func (h *QEMUHost) Images() agent.Images { return h.images }

// Executing implements Host: it reads the kernel's list of processes.
func (h *QEMUHost) Executing() map[id.ID]int {
	out := map[id.ID]int{}
	for _, p := range hypertest.Processes(h.dir) {
		if !strings.HasPrefix(filepath.Base(p.Args[0]), "qemu-system") {
			continue
		}
		for i, a := range p.Args {
			if a == "-uuid" && i+1 < len(p.Args) {
				if v, err := id.Parse(p.Args[i+1]); err == nil {
					out[v]++
				}
			}
		}
	}
	return out
}

// Leftovers implements Host: processes, cgroups, memory, run and data folders,
// read from the host.
func (h *QEMUHost) Leftovers() (out []string) {
	for _, p := range hypertest.Processes(h.dir) {
		out = append(out, "process "+strings.Join(p.Args, " "))
	}
	out = append(out, hypertest.Groups(h.short)...)
	for _, root := range []string{h.ram(), filepath.Join(h.dir, "run"), filepath.Join(h.dir, "guests"), filepath.Join(h.dir, "uids")} {
		out = append(out, files(root)...)
	}
	return out
}

// files lists what lies below a folder, but for what belongs to the node itself.
func files(root string) (out []string) {
	_ = filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasPrefix(e.Name(), "hypervisor.") || e.Name() == "lock" || e.Name() == "net" {
			return nil //nolint:nilerr // what vanishes meanwhile is not left over
		}
		line := fmt.Sprintf("file %s", path)
		if b, err := os.ReadFile(path); err == nil && len(b) < 256 && strings.Contains(path, "/uids/") { //nolint:gosec // a path from the walk of a folder that the test made
			line += " " + strings.TrimSpace(string(b)) // the claim names its VM
		}
		out = append(out, line)
		return nil
	})
	return out
}
