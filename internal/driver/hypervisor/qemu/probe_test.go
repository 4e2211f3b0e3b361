package qemu_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// probeName is the name under which this test binary plays a hypervisor that looks
// around and tells what it could do.
const probeName = "probe"

// temptations is what the probe is told to try; it travels as a kernel command line.
type temptations struct {
	Paths     []string `json:"paths"`
	PIDs      []int    `json:"pids"`
	Addresses []string `json:"addresses"`
	// Abstract is a UNIX socket without a file.
	Abstract string `json:"abstract"`
	// Unlocked: leave the disk without locks.
	Unlocked bool `json:"unlocked"`
}

// findings is what came of it.
type findings struct {
	PID        int               `json:"pid"`
	UID        int               `json:"uid"`
	Host       string            `json:"host"`
	Root       []string          `json:"root"`
	Opened     []string          `json:"opened"`
	Signalled  []int             `json:"signalled"`
	Reached    []string          `json:"reached"`
	Interfaces []string          `json:"interfaces"`
	Wrote      []string          `json:"wrote"`
	Caps       []int             `json:"caps"`
	Files      map[string]string `json:"files"`
}

// probeMain is a hypervisor that speaks as much of the control protocol as it takes
// to be let go, and then confesses on its serial line.
func probeMain() int {
	if len(os.Args) > 1 && os.Args[1] == "-version" {
		fmt.Println("QEMU emulator version 7.2.0")
		return 0
	}
	if after("-machine") == "none" { // a question, before there is any guest
		program, err := exec.LookPath("qemu-system-x86_64")
		if err == nil {
			err = unix.Exec(program, os.Args, os.Environ())
		}
		fmt.Fprintln(os.Stderr, err)
		return 69
	}
	var try temptations
	if err := json.Unmarshal([]byte(after("-append")), &try); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 69
	}
	if !try.Unlocked {
		if err := lockDisk(keeper.FilesFD); err != nil {
			fmt.Fprintln(os.Stderr, "lock the disk:", err)
			return 70
		}
	}
	go confessOnSerial(try)
	control, err := net.FileListener(os.NewFile(keeper.ControlFD, "control"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 71
	}
	for {
		c, err := control.Accept()
		if err != nil {
			return 72
		}
		speak(c, after("-uuid"))
	}
}

func after(option string) string {
	if i := slices.Index(os.Args, option); i >= 0 && i+1 < len(os.Args) {
		return os.Args[i+1]
	}
	return ""
}

// lockDisk takes the locks that QEMU takes as a writer.
func lockDisk(fd uintptr) error {
	for _, at := range []int64{101, 201} {
		if err := unix.FcntlFlock(fd, unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: at, Len: 1}); err != nil {
			return err
		}
	}
	return nil
}

func speak(c net.Conn, uuid string) {
	defer c.Close()
	fmt.Fprintln(c, `{"QMP": {"version": {}, "capabilities": []}}`)
	for in := bufio.NewScanner(c); in.Scan(); {
		var q struct {
			Execute string          `json:"execute"`
			ID      json.RawMessage `json:"id"`
		}
		_ = json.Unmarshal(in.Bytes(), &q)
		answer := "{}"
		switch q.Execute {
		case "query-uuid":
			answer = fmt.Sprintf(`{"UUID": %q}`, uuid)
		case "query-status":
			answer = `{"status": "running"}`
		}
		fmt.Fprintf(c, `{"return": %s, "id": %s}`+"\n", answer, q.ID)
	}
}

func confessOnSerial(try temptations) {
	l, err := net.FileListener(os.NewFile(keeper.SerialFD, "serial"))
	if err != nil {
		return
	}
	line, err := l.Accept()
	if err != nil {
		return
	}
	b, err := json.Marshal(lookAround(try))
	if err != nil {
		b = []byte(err.Error())
	}
	fmt.Fprintf(line, "%s\n", b)
}

func lookAround(try temptations) findings {
	f := findings{PID: os.Getpid(), UID: os.Getuid(), Files: map[string]string{}}
	f.Host, _ = os.Hostname()
	entries, _ := os.ReadDir("/")
	for _, e := range entries {
		f.Root = append(f.Root, e.Name())
	}
	for _, path := range try.Paths {
		if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			f.Opened = append(f.Opened, path)
			_ = unix.Close(fd)
		}
	}
	for _, pid := range try.PIDs {
		if unix.Kill(pid, 0) == nil || unix.Kill(pid, 0) == unix.EPERM {
			f.Signalled = append(f.Signalled, pid)
		}
	}
	for _, address := range try.Addresses {
		if c, err := net.Dial("tcp", address); err == nil {
			f.Reached = append(f.Reached, address)
			_ = c.Close()
		}
	}
	if c, err := net.Dial("unix", "@"+try.Abstract); err == nil {
		f.Reached = append(f.Reached, "@"+try.Abstract)
		_ = c.Close()
	}
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		if i.Flags&net.FlagUp != 0 {
			f.Interfaces = append(f.Interfaces, i.Name)
		}
	}
	for _, dir := range []string{"/", "/usr", "/vm", "/vm/run", "/dev", "/tmp"} {
		if os.WriteFile(filepath.Join(dir, "mine"), []byte("x"), 0o600) == nil {
			f.Wrote = append(f.Wrote, dir)
		}
	}
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if on, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && on == 1 {
			f.Caps = append(f.Caps, c)
		}
	}
	return f
}

// A program in QEMU's place: it finds no file, process or network but its own.
func TestProbeFindsNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a jail needs root; what is missing without it is told: TestConfinementIsTold")
	}
	other := newHarness(t, nil)
	neighbour := other.Machine(t, hypertest.Polite)
	running := other.launch(t, neighbour)

	h := newProbeHarness(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	abstract, err := net.Listen("unix", "@"+filepath.Base(h.dir))
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	m := h.Machine(t, hypertest.Polite)
	try := temptations{
		Paths: []string{
			"/etc/passwd", "/proc/self/status", "/sys/kernel", "/dev/urandom", "/dev/kvm", "/dev/net/tun", "/root",
			neighbour.Disks[0].File.Path, m.Disks[0].File.Path,
			filepath.Join(other.opt.RAMDir, other.opt.NodeShort, neighbour.VM.String()),
			filepath.Join(h.opt.DataDir, "vms", m.VM.String(), "machine.json"),
			other.socket(neighbour.VM, "control"), h.socket(m.VM, "control"),
		},
		PIDs:      []int{os.Getpid(), running.PID, other.proc(t, neighbour.VM).Keeper.PID},
		Addresses: []string{l.Addr().String()},
		Abstract:  filepath.Base(h.dir),
	}
	tempt(t, &m, try)
	s := h.launch(t, m)
	var got findings
	h.said(t, m, func(line string) bool { return json.Unmarshal([]byte(line), &got) == nil && got.PID != 0 })

	for what, list := range map[string]int{
		fmt.Sprintf("files: %v", got.Opened): len(got.Opened), fmt.Sprintf("processes: %v", got.Signalled): len(got.Signalled),
		fmt.Sprintf("sockets: %v", got.Reached): len(got.Reached), fmt.Sprintf("interfaces: %v", got.Interfaces): len(got.Interfaces),
		fmt.Sprintf("capabilities: %v", got.Caps): len(got.Caps),
	} {
		if list > 0 {
			t.Errorf("the probe found %s", what)
		}
	}
	if got.PID != 1 || got.Host != "jail" || got.UID < 1<<30 {
		t.Errorf("the probe is process %d, user %d on host %q", got.PID, got.UID, got.Host)
	}
	if !slices.Equal(got.Wrote, []string{"/vm/run"}) {
		t.Errorf("the probe could write to %v", got.Wrote)
	}
	for _, name := range got.Root {
		if !slices.Contains([]string{"dev", "vm", "usr", "lib", "lib64", "etc", "tmp"}, name) {
			t.Errorf("the probe's root holds %s", name)
		}
	}
	h.checkNamespaces(t, s.PID)
}

// newProbeHarness has the probe in QEMU's place.
func newProbeHarness(t *testing.T) *harness {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := newHarness(t, nil)
	if err := h.driver.Close(); err != nil {
		t.Fatal(err)
	}
	h.opt.Binary = filepath.Join(h.dir, probeName)
	copyFile(t, self, h.opt.Binary)
	if err := os.Chmod(h.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h.open()
	return h
}

// tempt tells the probe what to try.
func tempt(t *testing.T, m *contract.Machine, try temptations) {
	t.Helper()
	told, err := json.Marshal(try)
	if err != nil {
		t.Fatal(err)
	}
	m.Boot.Kernel, m.Boot.Cmdline = m.Disks[0].File.Path, string(told)
}

// A hypervisor that leaves a disk unlocked is not let go.
func TestUnlockedDiskIsSeen(t *testing.T) {
	h := newProbeHarness(t)
	m := h.Machine(t, hypertest.Polite)
	tempt(t, &m, temptations{Unlocked: true})
	_, err := h.driver.Launch(hypertest.Context(t), m)
	if !errs.Is(err, errs.HostFailure) || !strings.Contains(err.Error(), "has not locked the image of disk vda") {
		t.Fatalf("a launch without locks gave %v", err)
	}
	if left := h.processes(); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
	tempt(t, &m, temptations{})
	h.launch(t, m)
}

// A real QEMU cannot become or start another program: asked to, by its own means, it
// fails, and nothing was started.
func TestExecIsRefused(t *testing.T) {
	h := newHarness(t, nil)
	m := h.Machine(t, hypertest.Polite)
	s := h.launch(t, m)
	proof := filepath.Join(h.dir, "proof")
	if err := h.driver.Close(); err != nil { // it admits one at its control socket
		t.Fatal(err)
	}
	ctx := hypertest.Context(t)
	c, err := qmp.Dial(ctx, h.socket(m.VM, "control"), qmp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Execute(ctx, "migrate", map[string]any{"uri": "exec:touch " + proof}, nil)
	t.Logf("asked to execute, QEMU says: %v", err)
	if err == nil {
		var is struct{ Status string }
		if err := c.Execute(ctx, "query-migrate", nil, &is); err == nil && is.Status == "completed" {
			t.Error("QEMU executed a program")
		}
	}
	_ = c.Close()
	if _, err := os.Stat(proof); err == nil {
		t.Error("what QEMU executed has run")
	}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", s.PID, s.PID))
	if len(children) > 0 {
		t.Errorf("QEMU has children: %s", children)
	}
	h.open()
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// checkNamespaces compares namespaces, which the kernel numbers.
func (h *harness) checkNamespaces(t *testing.T, pid int) {
	t.Helper()
	for _, ns := range []string{"mnt", "pid", "ipc", "uts", "net"} {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
		ours, err2 := os.Readlink("/proc/self/ns/" + ns)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if theirs == ours {
			t.Errorf("the hypervisor is in our %s namespace", ns)
		}
	}
}

// said waits for a line on the console.
func (h *harness) said(t *testing.T, m contract.Machine, is func(string) bool) {
	t.Helper()
	log, err := h.driver.Log(hypertest.Context(t), m.VM, true)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var all strings.Builder
	for in := bufio.NewScanner(log); in.Scan(); {
		if is(in.Text()) {
			return
		}
		all.WriteString(in.Text() + "\n")
	}
	t.Fatalf("the console said\n%s", &all)
}

// All guests of a node are in one network namespace, in which there is nothing, and
// each is in others of its own; it goes with the last agent and guest.
func TestNamespaces(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("namespaces need root; what is missing without it is told: TestConfinementIsTold")
	}
	h := newHarness(t, nil)
	seen := map[string][]string{}
	for range 2 {
		s := h.launch(t, h.Machine(t, hypertest.Polite))
		h.checkNamespaces(t, s.PID)
		for _, ns := range []string{"mnt", "pid", "ipc", "uts", "net"} {
			is, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", s.PID, ns))
			if err != nil {
				t.Fatal(err)
			}
			seen[ns] = append(seen[ns], is)
		}
		if p := procStatus(t, s.PID); p["CapBnd"] != "0000000000000000" || p["CapAmb"] != "0000000000000000" {
			t.Errorf("the hypervisor can gain capabilities: %v", p)
		}
	}
	for ns, is := range seen {
		if one := is[0] == is[1]; one != (ns == "net") {
			t.Errorf("two guests' %s namespaces are %v", ns, is)
		}
	}
	h.Away(t, nil)
	var s syscall.Statfs_t
	if err := syscall.Statfs(filepath.Join(h.opt.RunDir, h.opt.NodeShort, "net"), &s); err != nil || s.Type != unix.NSFS_MAGIC {
		t.Errorf("with its agent away the guests' network is gone: %v", err)
	}
}
