package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/cli/local"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// binary is the program under test, built once.
var binary string

// coverDir names the folder for what the program's processes ran through.
const coverDir = "NOVACRON_COVER_DIR"

func TestMain(m *testing.M) {
	if code, is := otherFace(); is {
		os.Exit(code)
	}
	dir, err := os.MkdirTemp("", "nce2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// other users run it too
	_ = os.Chmod(dir, 0o755)
	binary = filepath.Join(dir, "novacron")
	args := []string{"build", "-trimpath", "-o", binary}
	// where it is set, every process of the program under test leaves there what
	// it ran through ('make cover')
	if dir := os.Getenv(coverDir); dir != "" {
		_ = os.Setenv("GOCOVERDIR", dir)
		args = append(args, "-cover", "-coverpkg=github.com/novacron/novacron/...")
	}
	build := exec.Command("go", append(args, "../cmd/novacron")...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the program:", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := publish(); err != nil {
		fmt.Fprintln(os.Stderr, "write the figures:", err)
		code = 1
	}
	for _, left := range append(measured, dir) {
		_ = os.RemoveAll(left)
	}
	os.Exit(code)
}

// measured are the folders of instances that were measured. They go when everything
// was: a file system without a journal makes files slowly for minutes after many
// were removed, and what is measured next would suffer from that.
var measured []string

// patience bounds every wait of these tests. It is generous: software emulation
// on two busy cores is slow, and a test that passes does not wait for it.
const patience = 90 * time.Second

// instance is one 'novacron up' in a folder of its own.
type instance struct {
	t    testing.TB
	data string
	args []string
	// patience bounds every wait.
	patience time.Duration
}

// up starts an instance, and at the end of the test stops and removes it and
// looks for leftovers.
func up(t testing.TB, args ...string) *instance {
	t.Helper()
	data, err := os.MkdirTemp("", "nce2e-data") //nolint:usetesting // a test's own folder is too long for sockets, and closed to other users
	if err != nil {
		t.Fatal(err)
	}
	// PostgreSQL's own user goes through this folder
	if err := os.Chmod(data, 0o755); err != nil {
		t.Fatal(err)
	}
	i := &instance{t: t, data: data, patience: patience, args: append([]string{"up", "--detach", "--data-dir", data, "--listen", "127.0.0.1:0"}, args...)}
	t.Cleanup(i.remove)
	i.start()
	return i
}

func (i *instance) start() {
	i.t.Helper()
	i.must(i.args...)
}

// remove stops the instance, removes it, and reports what is left.
func (i *instance) remove() {
	i.t.Helper()
	if i.t.Failed() {
		i.dumpLogs()
	}
	if out, err := i.run("down"); err != nil {
		i.t.Errorf("down: %v %s", err, out)
	}
	_, bench := i.t.(*testing.B)
	if bench {
		measured = append(measured, i.data)
	} else if out, err := i.run("clean", "--yes"); err != nil {
		i.t.Errorf("clean: %v %s", err, out)
	}
	if left := i.processes(); len(left) > 0 {
		i.t.Errorf("processes left: %v", left)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if run := local.PathsOf(i.data, os.Getuid(), os.Getenv).Run; bytes.Contains(mounts, []byte(run)) {
		i.t.Errorf("something is still mounted below %s", run)
	}
	if bench {
		return
	}
	if _, err := os.Stat(i.data); !errors.Is(err, os.ErrNotExist) {
		i.t.Errorf("the data folder is left: %v", err)
	}
	_ = os.RemoveAll(i.data)
}

func (i *instance) dumpLogs() {
	logs, _ := filepath.Glob(filepath.Join(i.data, "logs", "*.log"))
	for _, l := range logs {
		b, err := os.ReadFile(l)
		if err != nil {
			continue
		}
		i.t.Logf("--- %s\n%s", filepath.Base(l), b[max(0, len(b)-6000):])
	}
}

// run runs the command line against the instance.
func (i *instance) run(args ...string) (string, error) {
	return i.runIn(nil, args...)
}

func (i *instance) runIn(stdin io.Reader, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), i.patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "NOVACRON_DATA_DIR="+i.data, "HOME="+i.data)
	cmd.Stdin = stdin
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// must runs a command that has to succeed.
func (i *instance) must(args ...string) string {
	i.t.Helper()
	out, err := i.run(args...)
	if err != nil {
		i.t.Fatalf("novacron %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// fails runs a command that has to fail with an exit code and say something.
func (i *instance) fails(code int, says string, args ...string) {
	i.t.Helper()
	out, err := i.run(args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code || !strings.Contains(out, says) {
		i.t.Errorf("novacron %s: %v, want exit code %d and %q\n%s", strings.Join(args, " "), err, code, says, out)
	}
}

// get reads a document over the command line.
func get[T any](i *instance, args ...string) T {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), i.patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append(args, "-o", "json")...)
	cmd.Env = append(os.Environ(), "NOVACRON_DATA_DIR="+i.data, "HOME="+i.data)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		i.t.Fatalf("novacron %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	var v T
	if err := json.Unmarshal(out, &v); err != nil {
		i.t.Fatalf("novacron %s printed %s: %v", strings.Join(args, " "), out, err)
	}
	return v
}

// eventually waits for a level: what must become true, with why it is not yet.
func (i *instance) eventually(what string, is func() (bool, string)) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), i.patience)
	defer cancel()
	for {
		ok, why := is()
		if ok {
			return
		}
		if (clock.System{}).Sleep(ctx, 100*time.Millisecond) != nil {
			i.t.Fatalf("%s did not come true: %s", what, why)
		}
	}
}

// appears waits until a VM is in a state.
func (i *instance) appears(vm, state string) api.VM {
	i.t.Helper()
	var v api.VM
	i.eventually("VM "+vm+" "+state, func() (bool, string) {
		v = get[api.VM](i, "vm", "show", vm)
		return v.Status.State == state, fmt.Sprintf("it is %s (%s)", v.Status.State, v.Status.Reason)
	})
	return v
}

// logged waits until the serial log of a VM has a text.
func (i *instance) logged(vm, text string) {
	i.t.Helper()
	i.eventually(fmt.Sprintf("%q in the log of %s", text, vm), func() (bool, string) {
		out, err := i.run("vm", "logs", vm)
		return strings.Contains(out, text), fmt.Sprintf("%v %.300s", err, out[max(0, len(out)-300):])
	})
}

// console types lines into a VM's serial console until a text comes back.
func (i *instance) console(vm, want string, lines ...string) string {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), i.patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "vm", "console", vm)
	cmd.Env = append(os.Environ(), "NOVACRON_DATA_DIR="+i.data, "HOME="+i.data)
	in, err := cmd.StdinPipe()
	if err != nil {
		i.t.Fatal(err)
	}
	out := &watcher{want: want, found: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	defer func() {
		_, _ = in.Write([]byte{0x1d}) // Ctrl-] leaves
		_ = cmd.Wait()
	}()
	for _, l := range lines {
		if _, err := io.WriteString(in, l+"\n"); err != nil {
			i.t.Fatalf("type into the console of %s: %v", vm, err)
		}
	}
	select {
	case <-out.found:
	case <-ctx.Done():
		i.t.Fatalf("%q did not come from the console of %s: %s", want, vm, out.text())
	}
	return out.text()
}

// state is what 'up' writes of its processes.
type state struct {
	Up       proc            `json:"up"`
	Children map[string]proc `json:"children"`
	Summary  struct {
		Address     string `json:"address"`
		Socket      string `json:"socket"`
		Fingerprint string `json:"fingerprint"`
	} `json:"summary"`
}

type proc struct {
	PID int `json:"pid"`
}

func (i *instance) state() state {
	i.t.Helper()
	var s state
	for _, dir := range i.runDirs() {
		b, err := os.ReadFile(filepath.Join(dir, "state.json"))
		if err != nil {
			continue
		}
		if err := json.Unmarshal(b, &s); err != nil {
			i.t.Fatal(err)
		}
		return s
	}
	i.t.Fatal("the instance has no state file")
	return s
}

// runDirs finds the instance's folder of sockets by its data folder, as the
// processes name it.
func (i *instance) runDirs() []string {
	all, _ := filepath.Glob("/run/novacron*/state.json")
	var out []string
	for _, f := range all {
		b, err := os.ReadFile(f)
		if err == nil && bytes.Contains(b, []byte(strconv.Quote(i.data))) {
			out = append(out, filepath.Dir(f))
		}
	}
	return out
}

// kill ends one of the instance's processes as a power cut would, and gives its
// pid.
func (i *instance) kill(name string) int {
	i.t.Helper()
	pid := i.state().Children[name].PID
	if pid <= 1 {
		i.t.Fatalf("there is no process %q: %+v", name, i.state())
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		i.t.Fatalf("kill %s (%d): %v", name, pid, err)
	}
	return pid
}

// processes lists the instance's processes: whoever names its folder, or runs
// from below it.
func (i *instance) processes() (out []string) {
	paths := local.PathsOf(i.data, os.Getuid(), os.Getenv)
	for _, p := range hypertest.Processes(i.data, paths.Run, paths.RAM) {
		line := strings.Join(p.Args, " ")
		out = append(out, fmt.Sprintf("%d %s", p.PID, line[:min(len(line), 120)]))
	}
	return out
}
