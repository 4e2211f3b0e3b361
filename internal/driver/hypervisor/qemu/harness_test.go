package qemu_test

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/driver/hypervisor/qemu"
	"github.com/novacron/novacron/internal/driver/hypervisor/tap"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// The test binary is its own keeper, and a stand-in for the hypervisor.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == probeName {
		os.Exit(probeMain())
	}
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case keeper.Face:
			os.Exit(keeper.Main(os.Args[2:]))
		case keeper.ExecFace:
			os.Exit(keeper.ExecMain(os.Args[2:]))
		case agentFace:
			os.Exit(agentMain())
		}
	}
	os.Exit(m.Run())
}

// benchSector is guestcode/bench.s.
//
//go:embed guestcode/bench.bin
var benchSector []byte

// Offsets of its switches.
const (
	switchDeaf  = 4
	switchFlood = 5
)

// binaryEnv names the QEMU to test with, where it is not the installed one.
const binaryEnv = "NOVACRON_TEST_QEMU"

// harness is a host of its own: folders, node id, sockets.
type harness struct {
	t      testing.TB
	opt    qemu.Options
	driver *qemu.Driver
	dir    string
	vms    []id.ID
	once   sync.Once
}

func newHarness(t testing.TB, sink contract.Sink, bridges ...string) *harness {
	t.Helper()
	dir := hypertest.ShortDir(t)
	h := &harness{t: t, dir: dir, opt: qemu.Options{
		NodeShort: id.Short(id.New()),
		DataDir:   filepath.Join(dir, "data"),
		RunDir:    filepath.Join(dir, "run"),
		UIDDir:    filepath.Join(dir, "uids"),
		RAMDir:    "/dev/shm/" + filepath.Base(dir),
		Accel:     "tcg",
		Binary:    os.Getenv(binaryEnv),
		Bridges:   bridges,
		Sink:      sink,
		Logger:    slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}}
	h.open()
	t.Cleanup(h.finish)
	return h
}

// testWriter brings the driver's log to the test's.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (h *harness) open() {
	h.t.Helper()
	d, err := qemu.New(h.opt)
	if err != nil {
		h.t.Fatal(err)
	}
	h.driver = d
}

// finish cleans up once.
func (h *harness) finish() { h.once.Do(h.cleanUp) }

// cleanUp ends whatever is left, through the driver where that works.
func (h *harness) cleanUp() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if h.driver == nil {
		h.open()
	}
	all, err := h.driver.Adopt(ctx)
	if err != nil {
		h.t.Error(err)
	}
	for _, s := range all {
		if _, err := h.driver.Kill(ctx, s.Ref); err != nil {
			h.t.Error(err)
		}
		if err := h.driver.Release(ctx, s.VM); err != nil {
			h.t.Error(err)
		}
	}
	if err := h.driver.Close(); err != nil {
		h.t.Error(err)
	}
	for _, left := range h.processes() {
		h.t.Errorf("the test left a process: %s", left)
	}
	for name := range ofNode {
		if _, err := os.Lstat(filepath.Join(h.opt.RunDir, h.opt.NodeShort, name)); err == nil {
			h.t.Errorf("a closed driver left %s", name)
		}
	}
	for _, left := range h.cgroups() {
		h.t.Errorf("a closed driver left %s", left)
	}
	_ = os.RemoveAll(h.opt.RAMDir)
}

// cgroups lists the node's folders in all hierarchies.
func (h *harness) cgroups() []string {
	v2, _ := filepath.Glob("/sys/fs/cgroup/novacron-" + h.opt.NodeShort)
	v1, _ := filepath.Glob("/sys/fs/cgroup/*/novacron-" + h.opt.NodeShort)
	return append(v2, v1...)
}

func (h *harness) Driver() contract.Driver { return h.driver }

func (h *harness) Machine(t *testing.T, k hypertest.Kind) contract.Machine {
	if k == hypertest.Answering {
		return h.answering(t)
	}
	sector := append([]byte(nil), benchSector...)
	if k == hypertest.Deaf {
		sector[switchDeaf] = 1
	}
	return h.machine(t, sector)
}

// machine boots a sector from a raw disk.
func (h *harness) machine(t testing.TB, sector []byte) contract.Machine {
	t.Helper()
	m := contract.Machine{
		Ref:         contract.Ref{VM: id.New(), Epoch: 1},
		CPUs:        1,
		MemoryBytes: 16 << 20,
	}
	h.vms = append(h.vms, m.VM)
	disk := filepath.Join(h.dir, m.VM.String()+".raw")
	if err := os.WriteFile(disk, append(sector, make([]byte, 1<<20-len(sector))...), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Disks = []contract.Disk{{ID: id.New(), File: contract.File{Path: disk, Format: "raw"}}}
	return m
}

// Twin has disks of their own, as large.
func (h *harness) Twin(t *testing.T, m contract.Machine) contract.Machine {
	t.Helper()
	m.Epoch++
	m.Disks = slices.Clone(m.Disks)
	h.vms = append(h.vms, m.VM)
	if m.Variables != "" {
		m.Variables = filepath.Join(h.dir, filepath.Base(m.Variables))
	}
	for i, d := range m.Disks {
		if d.ReadOnly {
			continue
		}
		to := filepath.Join(h.dir, filepath.Base(d.File.Path))
		if err := emptyLike(to, d); err != nil {
			t.Fatal(err)
		}
		m.Disks[i].File.Path = to
	}
	return m
}

// emptyLike makes an image as large as a disk's, on the same base.
func emptyLike(to string, d contract.Disk) error {
	info, err := os.Stat(d.File.Path)
	if err != nil {
		return err
	}
	if d.File.Format == "raw" {
		f, err := os.Create(to)
		if err == nil {
			err = errors.Join(f.Truncate(info.Size()), f.Close())
		}
		return err
	}
	args := []string{"create", "-q", "-f", "qcow2"}
	if d.Backing != nil {
		args = append(args, "-b", d.Backing.Path, "-F", d.Backing.Format, to)
	} else {
		args = append(args, to, "8M")
	}
	return exec.Command("qemu-img", args...).Run()
}

func (h *harness) Away(t *testing.T, while func()) {
	t.Helper()
	if err := h.driver.Close(); err != nil {
		t.Fatal(err)
	}
	if while != nil {
		while()
	}
	h.open()
}

func (h *harness) proc(t *testing.T, vm id.ID) keeper.Proc {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(h.opt.DataDir, "vms", vm.String(), keeper.ProcFile))
	var p keeper.Proc
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (h *harness) CrashGuest(t *testing.T, vm id.ID) {
	t.Helper()
	signal(t, h.proc(t, vm).Hypervisor, unix.SIGKILL)
}

func signal(t *testing.T, i process.Identity, s unix.Signal) {
	t.Helper()
	p, err := process.Open(i)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	if err := p.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (h *harness) socket(vm id.ID, name string) string {
	return filepath.Join(h.opt.RunDir, h.opt.NodeShort, vm.String(), name)
}

func (h *harness) PowerOffGuest(t *testing.T, vm id.ID) {
	t.Helper()
	ctx := hypertest.Context(t)
	for {
		c, err := keeper.Attach(ctx, h.socket(vm, "keeper"))
		if errors.Is(err, keeper.ErrBusy) && (clock.System{}).Sleep(ctx, time.Millisecond) == nil {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := c.Write([]byte("!")); err != nil {
			t.Fatal(err)
		}
		// The key must have left the keeper before the line is cut.
		_, _ = c.Read(make([]byte, 64))
		return
	}
}

// FreePort finds a port that no outgoing connection of another test is given,
// so that it is still free when its machine is launched again.
func (h *harness) FreePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 10000 + rand.IntN(22000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// ofNode are the things in a node's run folder that are of no VM.
var ofNode = map[string]bool{"root": true, "net": true}

// Leftovers reads the host, not the driver's records of itself.
func (h *harness) Leftovers() []string {
	out := h.processes()
	for _, dir := range []string{
		filepath.Join(h.opt.DataDir, "vms"),
		filepath.Join(h.opt.RunDir, h.opt.NodeShort),
		filepath.Join(h.opt.RAMDir, h.opt.NodeShort),
	} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if h.driver != nil && ofNode[e.Name()] {
				continue // looked for when the driver is closed
			}
			out = append(out, "file "+filepath.Join(dir, e.Name()))
		}
	}
	entries, _ := os.ReadDir(h.opt.UIDDir)
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, "claim of uid "+e.Name())
		}
	}
	out = append(out, hypertest.Taps(h.opt.NodeShort)...)
	return append(out, hypertest.Groups(h.opt.NodeShort)...)
}

// processes finds what runs for this harness by what is on its command line.
func (h *harness) processes() []string {
	var words, out []string
	for _, vm := range h.vms {
		words = append(words, vm.String())
	}
	for _, p := range hypertest.Processes(words...) {
		if !h.ofAnother(p.PID) {
			out = append(out, fmt.Sprintf("process %d: %.60q", p.PID, p.Args))
		}
	}
	return out
}

// ofAnother tells whether a process is in a cgroup of another node: a VM that moves has
// processes on two.
func (h *harness) ofAnother(pid int) bool {
	groups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	of := strings.Contains(string(groups), "/novacron-")
	return of && !strings.Contains(string(groups), "/novacron-"+h.opt.NodeShort)
}

func TestConformance(t *testing.T) {
	var bridges []string
	if tap.Usable() == nil {
		bridges = []string{newBridge(t)}
	}
	hypertest.Exercise(t, func(t *testing.T, sink contract.Sink) hypertest.Harness {
		return newHarness(t, sink, bridges...)
	})
}
