package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/cli/local"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// machine is the true program on a data folder of its own: this test's binary
// under the program's name.
type machine struct {
	t   *testing.T
	dir string
	env []string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	// root's database runs as another user, who has to get there
	if err := errors.Join(os.Chmod(dir, 0o711), os.Chmod(filepath.Dir(dir), 0o711)); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, dir: filepath.Join(dir, "data")}
	m.env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_RUNTIME_DIR=", "NOVACRON_DATA_DIR="+m.dir)
	t.Cleanup(func() {
		if t.Failed() {
			m.showLogs()
		}
		m.run("", "down")
		if out, code := m.run("", "clean", "--yes"); code != 0 {
			t.Errorf("clean: %d, %s", code, out)
		}
		if _, err := os.Stat(m.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after clean: %v", err)
		}
	})
	return m
}

func (m *machine) showLogs() {
	logs, _ := filepath.Glob(filepath.Join(m.dir, "logs", "*.log"))
	for _, l := range logs {
		b, _ := os.ReadFile(l)
		m.t.Logf("== %s\n%s", filepath.Base(l), b[max(0, len(b)-4000):])
	}
}

// run runs the program and gives what it printed, errors included, and its code.
func (m *machine) run(stdin string, args ...string) (string, int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.t.Context()), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	var out bytes.Buffer
	cmd.Args[0], cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = "novacron", m.env, strings.NewReader(stdin), &out, &out
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		m.t.Fatalf("novacron %v: %v", args, err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// do runs a command line that must end with the code.
func (m *machine) do(code int, line string) string {
	m.t.Helper()
	out, got := m.run("", strings.Fields(line)...)
	if got != code {
		m.t.Fatalf("novacron %s: exit code %d, want %d\n%s", line, got, code, out)
	}
	return out
}

// up starts the instance and gives what it says of itself.
func (m *machine) up(args string) local.Summary {
	m.t.Helper()
	out := m.do(0, "up --detach --listen 127.0.0.1:0 -o json "+args)
	var s local.Summary
	_, doc, _ := strings.Cut(out, "{") // what it says on the way comes first
	if err := json.Unmarshal([]byte("{"+doc), &s); err != nil {
		m.t.Fatalf("%v in %s", err, out)
	}
	return s
}

// children reads who runs.
func (m *machine) children(s local.Summary) map[string]process.Identity {
	m.t.Helper()
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(s.Socket)), "state.json"))
	var state struct {
		Children map[string]process.Identity `json:"children"`
	}
	if err == nil {
		err = json.Unmarshal(raw, &state)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return state.Children
}

func (m *machine) vm(name string) api.VM {
	m.t.Helper()
	var v api.VM
	if err := json.Unmarshal([]byte(m.do(0, "vm show "+name+" -o json")), &v); err != nil {
		m.t.Fatal(err)
	}
	return v
}

func (m *machine) file(name string) string {
	m.t.Helper()
	path := filepath.Join(m.t.TempDir(), name)
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// The whole product on one machine, with simulated hosts, by its command line
// alone.
func TestUp(t *testing.T) {
	m := newMachine(t)
	s := m.up("--sim 3")
	if s.SetupToken == "" || s.Sim != 3 || s.Nodes != 0 {
		t.Errorf("got %+v", s)
	}
	m.do(0, "image import tiny --disk "+m.file("disk.raw"))
	m.do(0, "vm create web --image tiny --memory 128MiB --disk 64MiB --label a=b --start --wait")
	if v := m.vm("web"); v.Status.State != "running" || v.Labels["a"] != "b" || v.Status.Node == "" {
		t.Errorf("got %+v", v)
	}
	t.Run("Commands", func(t *testing.T) { testCommands(m) })
	t.Run("Remote", func(t *testing.T) { testRemote(m, s) })
	t.Run("Twice", func(t *testing.T) { testTwice(m, s) })
	t.Run("Children", func(t *testing.T) { testChildren(m, s) })
	t.Run("Killed", func(t *testing.T) { testKilled(m, s) })
	m.do(0, "vm delete web --wait")
	t.Run("DownAndUp", func(t *testing.T) { testDownAndUp(m) })
	if out := m.do(0, "down"); !strings.Contains(out, "has stopped") {
		t.Error(out)
	}
	if out := m.do(0, "down"); !strings.Contains(out, "was not running") {
		t.Error(out)
	}
	if out := m.do(6, "vm list"); !strings.Contains(out, "novacron up") {
		t.Error(out)
	}
}

func testCommands(m *machine) {
	for _, line := range []string{
		"status", "node list -o wide", "node show sim-0001 -o yaml", "vm list -o wide", "vm list --sort -name --filter name=web",
		"vm start web --wait", "vm stop web --wait", "vm start web --wait", "vm restart web --wait --grace 5",
		"vm pause web --wait", "vm resume web --wait", "vm label web tier=x a-", "job list", "audit list", "audit verify",
		"debug tasks", "ca export", "token create ci", "token list", "node cordon sim-0003", "node uncordon sim-0003", "image show tiny", "vm logs web --tail 3",
		"event follow --after 0 --count 3 -o json", "vm console web --timeout 100ms", "vm screenshot web --file -",
	} {
		m.do(0, line)
	}
	// what it finds of this machine is this machine's
	if out, code := m.run("", "doctor", "--all"); code != 0 && code != 8 || !strings.Contains(out, "audit log") {
		m.t.Errorf("doctor: %d %s", code, out)
	}
	testDatabase(m)
	m.do(3, "vm show nobody")
	m.do(4, "vm create web --image tiny")
	m.do(4, "image delete tiny")
	m.do(2, "vm create UPPER --image tiny")
	m.do(3, "vm create other --image nothing")
}

// testDatabase makes a backup, finds the VM in it, and looks into the database.
func testDatabase(m *machine) {
	dir := m.t.TempDir()
	dump, key := filepath.Join(dir, "dump"), filepath.Join(dir, "kek")
	m.do(0, "db backup "+dump+" --with-key "+key)
	for _, f := range []string{dump, key} {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
			m.t.Errorf("%s: %v %v", f, info, err)
		}
	}
	if out, code := m.run("", "db", "psql", "--", "-At", "-c", "SELECT name FROM vms"); code != 0 || strings.TrimSpace(out) != "web" {
		m.t.Errorf("the VMs are %q, exit code %d", out, code)
	}
	m.do(8, "db psql -- -c nonsense")
	m.do(8, "db backup /nonexistent/dump")
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "novacron-pg-*")); len(left) > 0 {
		m.t.Errorf("left: %v", left)
	}
}

// testRemote takes the way of a person at another machine.
func testRemote(m *machine, s local.Summary) {
	at := []string{"--address", s.Address, "--fingerprint", s.Fingerprint}
	if out, code := m.run(s.SetupToken+"\n", append([]string{"context", "add", "far", "--setup-token", "-"}, at...)...); code != 0 {
		m.t.Fatal(out)
	}
	if out := m.do(0, "--context far status"); !strings.Contains(out, "administrator") {
		m.t.Error(out)
	}
	// it is good once, and trust is not given to a stranger
	if out, code := m.run(s.SetupToken+"\n", append([]string{"context", "add", "far2", "--setup-token", "-"}, at...)...); code == 0 {
		m.t.Errorf("a setup token was good twice: %s", out)
	}
	m.do(5, "context add far3 --address "+s.Address+" --fingerprint "+strings.Repeat("00:", 31)+"00")
	if err := os.Remove(filepath.Join(filepath.Dir(m.dir), "novacron", "contexts.yaml")); err != nil {
		m.t.Fatal(err)
	}
}

func testTwice(m *machine, s local.Summary) {
	if again := m.up("--sim 3"); again.PID != s.PID || again.SetupToken != "" {
		m.t.Errorf("got %+v, want the one that runs", again)
	}
	if out := m.do(4, "up --sim 3"); !strings.Contains(out, "runs already, as process") {
		m.t.Error(out)
	}
	m.do(4, "clean --yes")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	defer l.Close()
	other := m.dir + "-other"
	if out := m.do(4, "up --sim 1 --data-dir "+other+" --listen "+l.Addr().String()); !strings.Contains(out, "is taken by process") {
		m.t.Error(out)
	}
	m.do(0, "clean --yes --data-dir "+other)
}

// testChildren kills each process; nothing of it is seen in the end.
func testChildren(m *machine, s local.Summary) {
	for _, name := range []string{"postgres", "server", "sim"} {
		before := m.children(s)[name]
		if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
			m.t.Fatal(name, err)
		}
		m.await(name+" comes back", func() bool { now := m.children(s)[name]; return now != before && now.Alive() })
		m.await("the VM is seen running again", func() bool {
			out, code := m.run("", "vm", "show", "web", "-o", "json")
			return code == 0 && strings.Contains(out, `"state": "running"`)
		})
	}
	m.do(0, "vm restart web --wait --timeout 30s")
}

// testKilled kills the supervisor: its children follow, and the next one takes up
// what was.
func testKilled(m *machine, s local.Summary) {
	old := m.children(s)
	up, err := process.Identify(s.PID)
	if err == nil {
		err = syscall.Kill(s.PID, syscall.SIGKILL)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.await("it is dead", func() bool { return !up.Alive() })
	again := m.up("--sim 3")
	if again.PID == s.PID || again.Address != s.Address || again.Fingerprint != s.Fingerprint {
		m.t.Errorf("got %+v", again)
	}
	for name, id := range old {
		if id.Alive() {
			m.t.Errorf("%s of the killed instance lives", name)
		}
	}
	m.await("the VM runs", func() bool { return m.vm("web").Status.State == "running" })
}

// testDownAndUp wants it up while it stops: that is a start, not "runs already".
func testDownAndUp(m *machine) {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		m.run("", "down")
	}()
	m.up("--sim 3")
	<-stopped
	if again := m.up("--sim 3"); again.Sim != 3 {
		m.t.Errorf("got %+v", again)
	}
	m.do(0, "status")
}

func (m *machine) await(what string, ok func() bool) {
	m.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(end) {
			m.t.Fatal(what + ": it did not come true")
		}
		_ = clock.System{}.Sleep(m.t.Context(), 20*time.Millisecond)
	}
}
