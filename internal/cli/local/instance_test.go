package local

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/internal/driver/hypervisor/cgroup"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func TestPaths(t *testing.T) {
	env := func(vars ...string) func(string) string {
		return func(k string) string {
			for i := 0; i < len(vars); i += 2 {
				if vars[i] == k {
					return vars[i+1]
				}
			}
			return ""
		}
	}
	user := env("HOME", "/home/u", "XDG_RUNTIME_DIR", "/run/user/7")
	cases := []struct {
		data string
		uid  int
		env  func(string) string
		want Paths
	}{
		{"", 0, env(), Paths{"/var/lib/novacron", "/run/novacron", "/dev/shm/novacron"}},
		{"/x", 0, env(), Paths{"/x", "/run/novacron-b3d1db31", "/dev/shm/novacron-b3d1db31"}},
		{"", 7, user, Paths{"/home/u/.local/share/novacron", "/run/user/7/novacron", "/dev/shm/novacron-7"}},
		{"", 7, env("XDG_DATA_HOME", "/d"), Paths{"/d/novacron", "/tmp/novacron-7", "/dev/shm/novacron-7"}},
		{"/x", 7, user, Paths{"/x", "/run/user/7/novacron-b3d1db31", "/dev/shm/novacron-7-b3d1db31"}},
		{"", 0, env("NOVACRON_DATA_DIR", "/x"), Paths{"/x", "/run/novacron-b3d1db31", "/dev/shm/novacron-b3d1db31"}},
	}
	for _, tc := range cases {
		data := tc.data
		if data == "" {
			data = DefaultData(tc.uid, tc.env)
		}
		if diff := cmp.Diff(tc.want, PathsOf(data, tc.uid, tc.env)); diff != "" {
			t.Errorf("%q, uid %d: %s", tc.data, tc.uid, diff)
		}
	}
	if got := Sockets(7, user); len(got) != 3 || got[1] != "/run/novacron/server/api.sock" || got[2] != ServiceSocket {
		t.Errorf("sockets: %v", got)
	}
}

// places makes an instance's folders that nothing runs in.
func places(t *testing.T) Paths {
	t.Helper()
	dir := t.TempDir()
	p := Paths{Data: filepath.Join(dir, "data"), Run: filepath.Join(dir, "run"), RAM: filepath.Join(dir, "ram")}
	if err := claimData(p); err != nil {
		t.Fatal(err)
	}
	if err := makeDirs(p, nil); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOneUpPerFolder(t *testing.T) {
	p := places(t)
	if _, held, err := locked(p); held || err != nil {
		t.Fatalf("held before: %v, %v", held, err)
	}
	lock, err := takeLock(p)
	if err != nil {
		t.Fatal(err)
	}
	_, err = takeLock(p)
	if !errors.Is(err, ErrRunning) || !errs.Is(err, errs.Conflict) {
		t.Errorf("a second lock: %v", err)
	}
	if pid, held, err := locked(p); !held || pid != os.Getpid() || err != nil {
		t.Errorf("held by %d, %v, %v", pid, held, err)
	}
	if _, err := Clean(p); !errs.Is(err, errs.Conflict) {
		t.Errorf("a running instance was cleaned: %v", err)
	}
	lock.Close()
	if ran, err := Down(t.Context(), p, clock.System{}); ran || err != nil {
		t.Errorf("down of nothing: %v, %v", ran, err)
	}
}

// An instance that is started while another one stops is not stopped with it.
func TestDownStopsOneInstance(t *testing.T) {
	p := places(t)
	// instance holds the lock, by the file that it inherits, until it is ended.
	instance := func() *exec.Cmd {
		lock, err := takeLock(p)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = lock.Close() }()
		cmd := exec.CommandContext(t.Context(), "sleep", "60")
		cmd.ExtraFiles = []*os.File{lock}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.lock(), fmt.Appendln(nil, cmd.Process.Pid), 0o600); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	first, clk, over := instance(), clock.NewFake(), make(chan error, 1)
	go func() {
		ran, err := Down(t.Context(), p, clk)
		if err == nil && !ran {
			err = errors.New("it says that nothing ran")
		}
		over <- err
	}()
	_ = first.Wait() // it does as it is asked
	second := instance()
	if err := clk.Waiters(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	clk.Advance(time.Minute)
	if err := <-over; err != nil {
		t.Error(err)
	}
	if s := first.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGINT {
		t.Errorf("the first ended by %v", s)
	}
	if _, held, _ := locked(p); !held {
		t.Error("the second was stopped too")
	}
	_ = second.Process.Kill()
	_ = second.Wait()
}

func TestAForeignFolderIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := Paths{Data: dir, Run: filepath.Join(dir, "run")}
	if err := claimData(p); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "thesis.tex") {
		t.Errorf("got %v", err)
	}
	if _, err := Clean(p); !errs.Is(err, errs.Conflict) {
		t.Errorf("clean: %v", err)
	}
	if !exists(filepath.Join(dir, "thesis.tex")) {
		t.Error("it is gone")
	}
	link := filepath.Join(t.TempDir(), "run")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if err := claimRun(Paths{Run: link}); !errs.Is(err, errs.Forbidden) {
		t.Errorf("a link in place of the run folder: %v", err)
	}
}

// An instance that ended, or did not start, leaves no empty run folders, and what
// guests live on with is left.
func TestRunFoldersGoWithTheInstance(t *testing.T) {
	p := places(t)
	guest := filepath.Join(p.guests(), "node", "vm")
	if err := os.MkdirAll(guest, 0o700); err != nil {
		t.Fatal(err)
	}
	p.removeEmpty()
	if exists(p.pgSocket()) || !exists(guest) {
		t.Errorf("of PostgreSQL's is there %v, of the guest's %v", exists(p.pgSocket()), exists(guest))
	}
	if err := os.RemoveAll(filepath.Dir(guest)); err != nil {
		t.Fatal(err)
	}
	p.removeEmpty()
	if exists(p.Run) {
		t.Error("the run folder is left")
	}
}

func TestCleanRemovesWhatUpMade(t *testing.T) {
	p := places(t)
	foreign := filepath.Join(p.Run, "uids")
	for _, dir := range []string{foreign, p.RAM, p.postgres()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// a guest that runs
	me, err := process.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(p.node(1), "guests", "vms", "v", keeper.ProcFile)
	if err := errors.Join(os.MkdirAll(filepath.Dir(record), 0o700), writeJSON(record, keeper.Proc{Hypervisor: me})); err != nil {
		t.Fatal(err)
	}
	if _, err := Clean(p); !errs.Is(err, errs.InUse) {
		t.Fatalf("cleaned under a guest: %v", err)
	}
	me.Start++ // one that has ended, and whose agent left its cgroup
	node := fmt.Sprintf("%08x", os.Getpid())
	tree, err := cgroup.Open(node, "", clock.System{})
	if err == nil {
		_, err = tree.Make("group-1")
	}
	if err := errors.Join(err, os.MkdirAll(filepath.Join(p.RAM, node), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(record, keeper.Proc{Hypervisor: me}); err != nil {
		t.Fatal(err)
	}
	if _, err := Clean(p); err != nil {
		t.Fatal(err)
	}
	if left := tree.List(); exists(p.Data) || exists(p.RAM) || !exists(foreign) || len(left) > 0 {
		t.Errorf("data %v, memory %v, foreign %v, groups %q", exists(p.Data), exists(p.RAM), exists(foreign), left)
	}
	if _, err := Clean(p); err != nil {
		t.Errorf("twice: %v", err)
	}
}

func TestPorts(t *testing.T) {
	p := places(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = claimPort(t.Context(), p, l.Addr().String())
	if !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "process ") {
		t.Errorf("a taken port: %v", err)
	}
	first, err := claimPort(t.Context(), p, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := claimPort(t.Context(), p, "127.0.0.1:0"); err != nil || again != first {
		t.Errorf("got %s, %v, want %s as before", again, err, first)
	}
	for _, bad := range []string{"", "x", "127.0.0.1:99999", "192.0.2.1:0"} {
		if _, err := claimPort(t.Context(), p, bad); !errs.Is(err, errs.InvalidField) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestLogsAreBounded(t *testing.T) {
	p := places(t)
	f, err := openLog(p.log("server"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, _ = io.WriteString(f, strings.Repeat("x", 100))
	boundLogsOnce(p.Logs(), 50)
	_, _ = io.WriteString(f, "after")
	now, _ := os.ReadFile(p.log("server"))
	before, _ := os.ReadFile(p.log("server") + olderSuffix)
	if string(now) != "after" || len(before) != 100 {
		t.Errorf("now %q, before %d bytes", now, len(before))
	}
}

func TestOptions(t *testing.T) {
	good := Options{Listen: "127.0.0.1:8443", Nodes: 1}
	for name, change := range map[string]func(*Options){
		"nodes": func(o *Options) { o.Nodes = -1 }, "sim": func(o *Options) { o.Sim = 1 << 20 },
		"listen": func(o *Options) { o.Listen = "8443" }, "owner": func(o *Options) { o.DatabaseOwner = "x" },
	} {
		o := good
		change(&o)
		if err := o.check(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	if got := good.advertised("10.0.0.1:1"); got[0] != "10.0.0.1:1" {
		t.Errorf("got %v", got)
	}
	if got := good.advertised("0.0.0.0:1"); strings.HasPrefix(got[0], "0.") {
		t.Errorf("nobody can dial %v", got)
	}
	if got := (Options{Advertise: []string{"a:1"}}).advertised("0.0.0.0:1"); got[0] != "a:1" {
		t.Errorf("got %v", got)
	}
}

// What an up that was killed left running is ended by the next one.
func TestLeftoversAreEnded(t *testing.T) {
	p := places(t)
	r := raise(t, "polite")
	r.ready(t)
	id, err := process.Identify(r.proc.Pid)
	if err != nil {
		t.Fatal(err)
	}
	r.child.mu.Lock()
	r.stopping = true // nobody supervises it any more
	r.child.mu.Unlock()
	if err := (state{Children: map[string]process.Identity{"server": id}}).write(p); err != nil {
		t.Fatal(err)
	}
	join := p.joinFile("node-1")
	if err := os.WriteFile(join, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &supervisor{o: Options{Paths: p, Clock: clock.System{}, Say: func(string) {}}, log: slog.New(slog.DiscardHandler)}
	if err := s.endLeftovers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if id.Alive() || exists(join) {
		t.Errorf("alive %v, token file %v", id.Alive(), exists(join))
	}
}
