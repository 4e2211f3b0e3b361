package keeper_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// playAide is a process beside a hypervisor: it sends its pid over the socket it was
// given, says that it is ready, and stays until the socket ends.
func playAide(args []string) int {
	value := func(option string) string {
		if i := slices.Index(args, option); i >= 0 {
			return args[i+1]
		}
		return ""
	}
	if value("--how") == "fail" {
		fmt.Fprintln(os.Stderr, "this aide cannot")
		return 1
	}
	var fd uintptr
	_, _ = fmt.Sscan(value("--fd"), &fd)
	c, err := net.FileConn(os.NewFile(fd, "socket"))
	if err != nil {
		return 2
	}
	fmt.Fprintf(c, "%d\n", os.Getpid())
	ready, err := os.OpenFile(value("--pid"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 3
	}
	fmt.Fprintln(ready, os.Getpid())
	_ = ready.Close()
	_, _ = c.Read(make([]byte, 1))
	return 0
}

func withAide(t *testing.T, b *bench, how string) keeper.Aide {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a := keeper.Aide{
		Name: "the aide", Socket: filepath.Join(b.cfg.Dir, "aide"), Ready: filepath.Join(b.cfg.Dir, "aide.ready"),
		Owner: os.Getuid(), Path: self, Argv: []string{aideFace, "--how", how},
	}
	b.cfg.Aides = []keeper.Aide{a}
	return a
}

// aides are the processes that play an aide of this socket.
func aides(a keeper.Aide) (out []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if args := strings.Split(string(b), "\x00"); slices.Contains(args, aideFace) && slices.Contains(args, a.Ready) {
			var pid int
			_, _ = fmt.Sscan(filepath.Base(filepath.Dir(f)), &pid)
			out = append(out, pid)
		}
	}
	return out
}

// until waits for something to be so.
func (b *bench) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for !is() {
		if (clock.System{}).Sleep(b.ctx, 5*time.Millisecond) != nil {
			t.Fatal("not seen: ", what)
		}
	}
}

// An aide is there when the keeper reports, comes back when it is killed, and ends
// with the hypervisor.
func TestAides(t *testing.T) {
	b := newBench(t, "echo")
	a := withAide(t, b, "well")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if b.proc, err = start(b.ctx, self, b.cfg); err != nil {
		t.Fatal(err)
	}
	first := aides(a)
	if len(first) != 1 {
		t.Fatalf("after the report there are aides %v", first)
	}
	for range 2 {
		was := aides(a)
		if err := unix.Kill(was[0], unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		b.until(t, "another aide", func() bool { now := aides(a); return len(now) == 1 && now[0] != was[0] })
	}
	if err := unix.Kill(b.proc.Hypervisor.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.until(t, "the end of the aide", func() bool { return len(aides(a)) == 0 })
	if err := keeper.AwaitExit(b.ctx, b.cfg.Socket); err != nil {
		t.Logf("the keeper is gone: %v", err)
	}
}

// An aide that cannot start fails the start, with its words, and leaves nothing.
func TestAideThatFails(t *testing.T) {
	b := newBench(t, "echo")
	a := withAide(t, b, "fail")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	proc, err := start(b.ctx, self, b.cfg)
	if err == nil || !strings.Contains(err.Error(), "this aide cannot") {
		t.Fatalf("got %v", err)
	}
	b.until(t, "the end of all", func() bool {
		on, err := keeper.Running(b.root)
		return err == nil && !on && len(aides(a)) == 0 && (proc.Hypervisor.PID == 0 || !proc.Hypervisor.Alive())
	})
}

// What is handed over arrives in its order, whatever its number; nothing else does.
func TestFilesArrive(t *testing.T) {
	b := newBench(t, "confess")
	dir := hypertest.ShortDir(t)
	var files []*os.File
	const many = 120
	for i := range many {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("file-%03d", i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err := keeper.NewSpare(self, keeper.Place{})
	if err != nil {
		t.Fatal(err)
	}
	if b.proc, err = s.Start(b.ctx, "test", b.cfg, files...); err != nil {
		t.Fatal(err)
	}
	b.awaitExit()
	text, err := io.ReadAll(b.log(false))
	if err != nil {
		t.Fatal(err)
	}
	var got confession
	_, text, _ = bytes.Cut(text, []byte("ready\r\n"))
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("confessed %q: %v", text, err)
	}
	seen := 0
	for _, f := range got.Files {
		if strings.Contains(f, dir) {
			seen++
		}
	}
	for i := range many {
		if want := fmt.Sprintf("%d %s", keeper.FilesFD+i, files[i].Name()); !slices.Contains(got.Files, want) {
			t.Fatalf("file %d is not at %d: %v", i, keeper.FilesFD+i, got.Files)
		}
	}
	if seen != many {
		t.Errorf("%d files are open twice", seen-many)
	}
}
