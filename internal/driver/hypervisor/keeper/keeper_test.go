package keeper_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// The test binary is also the keeper, its second stage, and a stand-in for the
// hypervisor that only has a serial line.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, aideFace) {
		os.Exit(playAide(os.Args[1:]))
	}
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case keeper.Face:
			os.Exit(keeper.Main(os.Args[2:]))
		case keeper.ExecFace:
			os.Exit(keeper.ExecMain(os.Args[2:]))
		case "guest":
			os.Exit(guest(os.Args[2]))
		}
	}
	os.Exit(m.Run())
}

// aideFace makes the test binary an aide; options that the keeper adds stand first.
const aideFace = "aide"

// guest plays a hypervisor whose guest behaves as told.
func guest(how string) int {
	l, err := net.FileListener(os.NewFile(keeper.SerialFD, "serial"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 70
	}
	line, err := l.Accept()
	if err != nil {
		return 71
	}
	fmt.Fprint(line, "ready\r\n")
	switch how {
	case "flood":
		w := bufio.NewWriterSize(line, 32<<10)
		for i := range floodLines {
			fmt.Fprintf(w, "%09d\n", i)
		}
		_ = w.Flush()
	case "deluge":
		drop := bytes.Repeat([]byte("the guest prints what it likes\n"), 32<<10)
		for range 1 << 10 {
			_, _ = line.Write(drop)
		}
		_, _ = line.Write([]byte("the end\n"))
	case "deaf":
		_ = unix.Pause()
	case "confess":
		b, err := json.Marshal(confess())
		if err != nil {
			return 72
		}
		_, _ = line.Write(b)
	case "complain":
		fmt.Fprintln(os.Stderr, "something is wrong")
		return 3
	default:
		echo(line)
	}
	return 0
}

const floodLines = 600_000 // 6 MB

// echo returns what is typed; the line "off" ends it.
func echo(line net.Conn) {
	in := bufio.NewReader(line)
	for {
		s, err := in.ReadString('\r')
		fmt.Fprintf(line, "%s\n", s)
		if err != nil || s == "off\r" {
			return
		}
	}
}

type confession struct {
	UID, GID   int
	Groups     []int
	NoNewPrivs int
	Core       uint64
	Umask      int
	Files      []string
}

func confess() confession {
	groups, _ := os.Getgroups()
	nnp, _ := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	var core unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_CORE, &core)
	entries, _ := os.ReadDir("/proc/self/fd")
	var open []string
	for _, e := range entries {
		what, _ := os.Readlink("/proc/self/fd/" + e.Name())
		open = append(open, e.Name()+" "+what)
	}
	return confession{os.Getuid(), os.Getgid(), groups, nnp, core.Max, unix.Umask(0), open}
}

type bench struct {
	*testing.T
	ctx  context.Context
	cfg  keeper.Config
	root *os.Root
	proc keeper.Proc
}

func newBench(t *testing.T, how string) *bench {
	t.Helper()
	dir := t.TempDir()
	short := hypertest.ShortDir(t)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &bench{T: t, ctx: ctx, root: root, cfg: keeper.Config{
		Dir:      dir,
		Control:  filepath.Join(short, "c"),
		Serial:   filepath.Join(short, "s"),
		Socket:   filepath.Join(short, "k"),
		Epoch:    7,
		LogBytes: 1 << 20,
		Exec:     keeper.Exec{Path: self, Argv: []string{self, "guest", how}},
	}}
}

func (b *bench) start() {
	b.Helper()
	var err error
	if b.proc, err = start(b.ctx, b.cfg.Exec.Path, b.cfg); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		for _, i := range []process.Identity{b.proc.Hypervisor, b.proc.Keeper} {
			b.end(i)
		}
	})
}

// end kills one process and waits until it is gone.
func (b *bench) end(i process.Identity) {
	h, err := process.Open(i)
	if errors.Is(err, process.ErrGone) {
		return
	}
	if err != nil {
		b.Error(err)
		return
	}
	defer func() { _ = h.Close() }()
	_ = h.Signal(unix.SIGKILL)
	<-h.Ended()
}

func (b *bench) awaitExit() keeper.Exit {
	b.Helper()
	_ = keeper.AwaitExit(b.ctx, b.cfg.Socket)
	var e keeper.Exit
	if err := durable.ReadJSON(b.root, keeper.ExitFile, &e); err != nil {
		b.Fatal(err)
	}
	if e.Epoch != b.cfg.Epoch || e.At.IsZero() {
		b.Errorf("the exit record is %+v", e)
	}
	return e
}

func (b *bench) log(follow bool) io.ReadCloser {
	b.Helper()
	r, err := keeper.Log(b.ctx, b.root, b.cfg.Socket, follow)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = r.Close() })
	return r
}

func (b *bench) see(r io.Reader, want string) {
	b.Helper()
	var got bytes.Buffer
	buf := make([]byte, 4096)
	for !strings.Contains(got.String(), want) {
		n, err := r.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			b.Fatalf("waited for %q, got %q and then %v", want, got.String(), err)
		}
	}
}

func TestWhoRunsIsWrittenDownBeforeTheAgentIsTold(t *testing.T) {
	b := newBench(t, "echo")
	b.start()
	var kept keeper.Proc
	if err := durable.ReadJSON(b.root, keeper.ProcFile, &kept); err != nil || kept != b.proc {
		t.Fatalf("proc.json is %+v, %v; the agent was told %+v", kept, err, b.proc)
	}
	if !kept.Keeper.Alive() || !kept.Hypervisor.Alive() || kept.Epoch != 7 {
		t.Fatalf("%+v", kept)
	}
	if on, err := keeper.Running(b.root); err != nil || !on {
		t.Fatalf("running: %v, %v", on, err)
	}
	for _, s := range []string{b.cfg.Control, b.cfg.Serial, b.cfg.Socket} {
		info, err := os.Stat(s)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("socket %s: %v, %v", filepath.Base(s), info, err)
		}
	}
	if sid, err := unix.Getsid(kept.Keeper.PID); err != nil || sid != kept.Keeper.PID {
		t.Errorf("the keeper's session is %d, %v; want its own", sid, err)
	}
}

func TestEndsAreRecorded(t *testing.T) {
	for how, want := range map[string]keeper.Exit{
		"confess":  {Code: 0},
		"complain": {Code: 3, Said: "something is wrong\n"},
	} {
		t.Run(how, func(t *testing.T) {
			b := newBench(t, how)
			b.start()
			e := b.awaitExit()
			// of this program itself, when what it runs through is counted
			said := strings.ReplaceAll(e.Said, "warning: GOCOVERDIR not set, no coverage data emitted\n", "")
			if e.Code != want.Code || e.Signal != 0 || said != want.Said {
				t.Fatalf("recorded %+v, want %+v", e, want)
			}
		})
	}
	t.Run("signal", func(t *testing.T) {
		b := newBench(t, "deaf")
		b.start()
		b.end(b.proc.Hypervisor)
		if e := b.awaitExit(); e.Signal != int(unix.SIGKILL) || e.Code != -1 {
			t.Fatalf("recorded %+v, want signal 9", e)
		}
	})
	t.Run("no such program", func(t *testing.T) {
		b := newBench(t, "")
		self := b.cfg.Exec.Path
		b.cfg.Exec.Path = "/nonexistent/hypervisor"
		var err error
		if b.proc, err = start(b.ctx, self, b.cfg); err != nil {
			t.Fatal(err)
		}
		if e := b.awaitExit(); e.Code != 126 || !strings.Contains(e.Said, "exec the hypervisor") {
			t.Fatalf("recorded %+v, want exit code 126 and why", e)
		}
	})
}

func TestConfinement(t *testing.T) {
	b := newBench(t, "confess")
	b.cfg.Exec.Limits = []keeper.Limit{{Resource: unix.RLIMIT_CORE, Max: 0}}
	want := confession{UID: os.Getuid(), GID: os.Getgid(), NoNewPrivs: 1, Umask: 0o077}
	if os.Getuid() == 0 {
		b.cfg.Exec.Credential = &keeper.Credential{UID: 64321, GID: 64322}
		want.UID, want.GID = 64321, 64322
		// The stand-in must be readable for that user, which a test's folder is not.
		b.cfg.Exec.Path = readable(t, b.cfg.Exec.Path)
	}
	self := b.cfg.Exec.Path
	var err error
	if b.proc, err = start(b.ctx, self, b.cfg); err != nil {
		t.Fatal(err)
	}
	b.awaitExit()
	var got confession
	text, err := io.ReadAll(b.log(false))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ = bytes.Cut(text, []byte("ready\r\n"))
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("confessed %q: %v", text, err)
	}
	for _, f := range got.Files { // what the stand-in's own runtime opened is not the point
		if strings.Contains(f, "pipe:") && !strings.HasPrefix(f, "2 ") {
			t.Errorf("a file of somebody else is open: %s", f)
		}
	}
	got.Files = nil
	if os.Getuid() == 0 && len(got.Groups) != 0 {
		t.Errorf("groups %v are left", got.Groups)
	}
	got.Groups = nil
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("the hypervisor runs as %+v, want %+v", got, want)
	}
}

// readable copies a program to where anybody may execute it.
func readable(t *testing.T, name string) string {
	t.Helper()
	dir := hypertest.ShortDir(t)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "program")
	if err := errors.Join(os.WriteFile(out, b, 0o755), os.Chmod(out, 0o755)); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestConsoleHasOneWriter(t *testing.T) {
	b := newBench(t, "echo")
	b.start()
	b.see(b.log(true), "ready")
	first, err := keeper.Attach(b.ctx, b.cfg.Socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keeper.Attach(b.ctx, b.cfg.Socket); !errors.Is(err, keeper.ErrBusy) {
		t.Fatalf("a second writer got %v", err)
	}
	_, _ = io.WriteString(first, "hello\r")
	b.see(first, "hello\r\n")
	_ = first.Close()
	second := b.attachWhenFree()
	_, _ = io.WriteString(second, "off\r")
	b.see(second, "off")
	if _, err := io.Copy(io.Discard, second); err != nil {
		t.Fatalf("the console of an ended guest gave %v", err)
	}
}

// attachWhenFree attaches as soon as the keeper has seen the last writer leave.
func (b *bench) attachWhenFree() io.ReadWriteCloser {
	b.Helper()
	for {
		c, err := keeper.Attach(b.ctx, b.cfg.Socket)
		if err == nil {
			b.Cleanup(func() { _ = c.Close() })
			return c
		}
		if !errors.Is(err, keeper.ErrBusy) || clock.System.Sleep(clock.System{}, b.ctx, time.Millisecond) != nil {
			b.Fatalf("attach: %v", err)
		}
	}
}

// A guest that takes no input holds its writer back, but the writer can leave and
// the next one come.
func TestStuckWriterCanLeave(t *testing.T) {
	b := newBench(t, "deaf")
	b.start()
	c, err := keeper.Attach(b.ctx, b.cfg.Socket)
	if err != nil {
		t.Fatal(err)
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = c.Write(bytes.Repeat([]byte("x"), 4<<20))
	}()
	_ = c.Close()
	<-written
	b.attachWhenFree()
}

// logSize is how much of the console is kept.
func (b *bench) logSize() {
	b.Helper()
	entries, err := fs.ReadDir(b.root.FS(), ".")
	if err != nil {
		b.Fatal(err)
	}
	var size int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasPrefix(e.Name(), "serial.") {
			size += info.Size()
		}
	}
	if size > 2<<20 || size < 1<<20 {
		b.Errorf("the log has %d bytes, want between one and two segments of 1 MiB", size)
	}
}

// A gigabyte that a guest prints at once is taken at once, and its end is kept.
func TestGigabyteNeitherStallsNorGrows(t *testing.T) {
	b := newBench(t, "deluge")
	b.start()
	b.awaitExit()
	b.logSize()
	all, err := io.ReadAll(b.log(false))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(all, []byte("the end\n")) {
		t.Errorf("of a gigabyte, %d bytes are kept, and not the end", len(all))
	}
}

func TestFloodNeitherStallsNorGrows(t *testing.T) {
	b := newBench(t, "flood")
	b.start()
	b.awaitExit() // with nobody reading all the while
	b.logSize()
	all, err := io.ReadAll(b.log(false))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(all)), "\n")
	if last := lines[len(lines)-1]; last != fmt.Sprintf("%09d", floodLines-1) {
		t.Fatalf("the log ends with %q", last)
	}
	checkCount(t, lines[1:]) // the first may be cut
}

func checkCount(t *testing.T, lines []string) {
	t.Helper()
	for i := 1; i < len(lines); i++ {
		a, _ := strconv.Atoi(lines[i-1])
		if c, err := strconv.Atoi(lines[i]); err != nil || c != a+1 {
			t.Fatalf("%q follows %q", lines[i], lines[i-1])
		}
	}
}

// A follower gets the stream in order, without gap while it keeps up with the
// files, and its end.
func TestFollowerGetsTheStreamToItsEnd(t *testing.T) {
	b := newBench(t, "flood")
	b.cfg.LogBytes = 16 << 20 // nothing is rotated away
	b.start()
	all, err := io.ReadAll(b.log(true))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(all)), "\n")
	if len(lines) != floodLines+1 || lines[0] != "ready\r" {
		t.Fatalf("got %d lines that begin with %q, want %d", len(lines), lines[0], floodLines+1)
	}
	checkCount(t, lines[1:])
}

func TestDeathOfTheKeeperIsNotTheGuests(t *testing.T) {
	b := newBench(t, "deaf")
	b.start()
	b.see(b.log(true), "ready")
	if all, err := io.ReadAll(b.log(false)); err != nil || !strings.Contains(string(all), "ready") {
		t.Fatalf("the log is %q, %v", all, err)
	}
	b.end(b.proc.Keeper)
	if !b.proc.Hypervisor.Alive() {
		t.Fatal("the guest died with its keeper")
	}
	if on, err := keeper.Running(b.root); err != nil || on {
		t.Fatalf("running: %v, %v", on, err)
	}
	if all, err := io.ReadAll(b.log(true)); err != nil || !strings.Contains(string(all), "ready") {
		t.Fatalf("without a keeper the log is %q, %v", all, err)
	}
	if err := durable.ReadJSON(b.root, keeper.ExitFile, new(keeper.Exit)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("an exit was recorded by nobody: %v", err)
	}
}

func TestSecondKeeperIsRefused(t *testing.T) {
	b := newBench(t, "echo")
	b.start()
	if p, err := start(b.ctx, b.cfg.Exec.Path, b.cfg); err == nil {
		t.Fatalf("a second keeper started %+v", p)
	}
	if !b.proc.Hypervisor.Alive() {
		t.Fatal("the first one's guest was harmed")
	}
	c, err := keeper.Attach(b.ctx, b.cfg.Socket)
	if err != nil {
		t.Fatalf("the first one's socket was taken: %v", err)
	}
	_ = c.Close()
}

// A keeper that has been started and has not yet come to anything holds its folder
// already, and ends with the patience of whoever started it.
func TestFolderIsTakenFromTheFirstMoment(t *testing.T) {
	b := newBench(t, "echo")
	stuck := filepath.Join(hypertest.ShortDir(t), "stuck")
	if err := os.WriteFile(stuck, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.ctx)
	failed := make(chan error, 1)
	go func() {
		_, err := start(ctx, stuck, b.cfg)
		failed <- err
	}()
	for on := false; !on; {
		var err error
		if on, err = keeper.Running(b.root); err != nil {
			t.Fatal(err)
		}
		if b.ctx.Err() != nil {
			t.Fatal("a started keeper does not hold its folder")
		}
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if on, err := keeper.Running(b.root); err != nil || on {
		t.Fatalf("after its end the folder is taken: %v, %v", on, err)
	}
}

// A child that was never told what to become ends with its keeper.
func TestNothingRunsUnrecorded(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "theirs")
	cmd := exec.Command("/proc/self/exe", keeper.ExecFace)
	cmd.ExtraFiles = []*os.File{os.Stdin, os.Stdin, theirs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	_ = unix.Close(fds[0]) // the keeper dies
	err = cmd.Wait()
	var ended *exec.ExitError
	if !errors.As(err, &ended) || ended.ExitCode() != 125 {
		t.Fatalf("ended with %v, want exit code 125", err)
	}
}

// start starts a keeper for one guest.
func start(ctx context.Context, program string, c keeper.Config) (keeper.Proc, error) {
	s, err := keeper.NewSpare(program, keeper.Place{})
	if err != nil {
		return keeper.Proc{}, err
	}
	return s.Start(ctx, "test", c)
}

// spare starts one and names its two processes.
func spare(t *testing.T) (*keeper.Spare, []process.Identity) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	before := append(children(t, self, keeper.Face), children(t, self, keeper.ExecFace)...)
	s, err := keeper.NewSpare(self, keeper.Place{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		var both []process.Identity
		for _, face := range []string{keeper.Face, keeper.ExecFace} {
			for _, pid := range children(t, self, face) {
				i, err := process.Identify(pid)
				if err == nil && !slices.Contains(before, pid) {
					both = append(both, i)
				}
			}
		}
		if len(both) == 2 {
			return s, both
		}
		if (clock.System{}).Sleep(ctx, 5*time.Millisecond) != nil {
			t.Fatalf("%d processes, want 2", len(both))
		}
	}
}

// children finds the processes of a program by their first argument.
func children(t *testing.T, program, face string) (pids []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		b, err := os.ReadFile(f)
		words := strings.Split(string(b), "\x00")
		if err != nil || len(words) < 2 || words[1] != face {
			continue
		}
		dir := filepath.Dir(f)
		if exe, err := os.Readlink(dir + "/exe"); err != nil || exe != program {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A spare that is not used ends with whoever started it, and its second stage
// with it.
func TestUnusedSpareEnds(t *testing.T) {
	s, both := spare(t)
	s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, i := range both {
		for i.Alive() {
			if (clock.System{}).Sleep(ctx, 5*time.Millisecond) != nil {
				t.Fatalf("process %d of an unused spare still runs", i.PID)
			}
		}
	}
}

// A spare becomes the keeper of the guest it is told of, under that guest's name;
// one that has ended says so, and has done nothing.
func TestSpareBecomesAKeeper(t *testing.T) {
	const vm = "01a202e0-0717-72ea-be94-af3d0814258d"
	b := newBench(t, "echo")
	s, both := spare(t)
	var err error
	if b.proc, err = s.Start(b.ctx, vm, b.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.end(b.proc.Hypervisor); b.end(b.proc.Keeper) })
	if b.proc.Keeper != both[0] || b.proc.Hypervisor != both[1] {
		t.Errorf("%+v is not the spare %+v", b.proc, both)
	}
	if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", b.proc.Keeper.PID)); err != nil || !strings.Contains(string(line), keeper.Face+"\x00"+vm+"\x00") {
		t.Errorf("the keeper's command line is %q, %v", line, err)
	}
	if _, err := s.Start(b.ctx, vm, b.cfg); err == nil {
		t.Error("a spare was used twice")
	}

	dead, both := spare(t)
	b.end(both[0])
	other := newBench(t, "echo")
	if _, err := dead.Start(other.ctx, vm, other.cfg); !errors.Is(err, keeper.ErrGone) {
		t.Errorf("a spare that has ended: %v", err)
	}
	if on, err := keeper.Running(other.root); err != nil || on {
		t.Errorf("its folder is taken: %v, %v", on, err)
	}
}
