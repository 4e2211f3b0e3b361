package jail_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/jail"
)

// inmateFace makes the test binary enter the jail that its next argument says.
const inmateFace = "inmate"

// stay is what an inmate is told.
type stay struct {
	Spec  jail.Spec
	Binds []jail.Bind
}

// report is what it finds.
type report struct {
	Root    []string
	Links   []string
	Ran     string
	Wrote   []string
	Network string
}

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == inmateFace {
		os.Exit(inmate(os.Args[2]))
	}
	os.Exit(m.Run())
}

func inmate(told string) int {
	runtime.LockOSThread()
	var s stay
	err := json.Unmarshal([]byte(told), &s)
	unix.Umask(0o077)
	if err == nil {
		err = errors.Join(s.Spec.Build(), s.Spec.Enter(s.Binds...))
	}
	if err == nil {
		err = jail.Drop()
	}
	if err != nil {
		os.Stderr.WriteString(err.Error())
		return 1
	}
	var r report
	entries, _ := os.ReadDir("/")
	for _, e := range entries {
		r.Root = append(r.Root, e.Name())
	}
	if out, err := exec.Command("/usr/bin/id", "-u").CombinedOutput(); err != nil {
		r.Ran = err.Error() + string(out)
	} else {
		r.Ran = strings.TrimSpace(string(out))
	}
	for _, path := range []string{"/x", "/usr/bin/x", "/given/x", "/shown"} {
		if os.WriteFile(path, nil, 0o600) == nil {
			r.Wrote = append(r.Wrote, path)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return 1
	}
	return 0
}

func newSpec(t *testing.T) jail.Spec {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a jail needs CAP_SYS_ADMIN: run the tests as root")
	}
	s := jail.Spec{At: t.TempDir(), Devices: []string{"/dev/null"}}
	if err := s.Show("/usr/bin/id"); err != nil {
		t.Fatal(err)
	}
	return s
}

func enter(t *testing.T, s jail.Spec, binds ...jail.Bind) (report, error) {
	t.Helper()
	told, err := json.Marshal(stay{s, binds})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, inmateFace, string(told))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: jail.Flags}
	out, err := cmd.Output()
	var r report
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		err = errors.New(string(ended.Stderr))
	}
	return r, err
}

// A program that was shown runs, with its libraries; nothing else is there, and
// nothing can be written but what was given for it.
func TestJail(t *testing.T) {
	s := newSpec(t)
	given, shown := t.TempDir(), filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(shown, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := enter(t, s, jail.Bind{From: given, To: "/given", Write: true}, jail.Bind{From: shown, To: "/shown"})
	if err != nil {
		t.Fatal(err)
	}
	if r.Ran != "0" {
		t.Errorf("the program that was shown says %q", r.Ran)
	}
	if !slices.Equal(r.Wrote, []string{"/given/x"}) {
		t.Errorf("it could write %v", r.Wrote)
	}
	for _, name := range r.Root {
		if !slices.Contains([]string{"dev", "etc", "given", "lib", "lib64", "shown", "usr"}, name) {
			t.Errorf("its root holds %s", name)
		}
	}
	for line := range strings.Lines(mounts(t)) {
		// others mount what they like meanwhile
		if strings.Contains(line, s.At) || strings.Contains(line, given) || strings.Contains(line, shown) {
			t.Errorf("the host has a mount of the jail: %s", line)
		}
	}
	if left, _ := os.ReadDir(s.At); len(left) > 0 {
		t.Errorf("the folder that was mounted over holds %v", left)
	}
}

func mounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestJailThatCannotBe(t *testing.T) {
	s := newSpec(t)
	s.Shown = append(s.Shown, "/nonexistent/file")
	if _, err := enter(t, s); err == nil || !strings.Contains(err.Error(), "show /nonexistent/file") {
		t.Errorf("got %v", err)
	}
	s = newSpec(t)
	s.Net = "/nonexistent/net"
	if _, err := enter(t, s); err == nil || !strings.Contains(err.Error(), "network namespace") {
		t.Errorf("got %v", err)
	}
	if err := (&jail.Spec{}).Show("/etc/passwd"); err == nil {
		t.Error("what is no program was shown")
	}
}

// The network is kept by its file alone, made once, and gone when it is removed.
func TestNet(t *testing.T) {
	newSpec(t)
	path := filepath.Join(t.TempDir(), "net")
	for range 2 {
		if err := jail.MakeNet(path); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(mounts(t), path); n != 1 {
		t.Errorf("it is mounted %d times", n)
	}
	for range 2 {
		if err := jail.RemoveNet(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(path); err == nil || strings.Contains(mounts(t), path) {
		t.Error("something is left")
	}
}
