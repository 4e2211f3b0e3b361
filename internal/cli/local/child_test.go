package local

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// roleEnv makes the test binary one of the children below.
const roleEnv = "NOVACRON_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); role {
	case "":
		os.Exit(m.Run())
	case "parent":
		parent()
	default:
		play(role)
	}
}

// play is a child: it says that it is ready and waits for signals.
func play(role string) {
	tell := NewNotifier()
	got := make(chan os.Signal, 4)
	signal.Notify(got, syscall.SIGINT, syscall.SIGTERM)
	switch role {
	case "dies":
		tell.Ready(Summary{PID: os.Getpid()})
		os.Exit(3)
	case "fails":
		tell.Failed(errs.New(errs.NoSpace, "no room").Because(io.ErrShortWrite))
		os.Exit(1)
	}
	tell.Ready(Summary{PID: os.Getpid()})
	for s := range got {
		fmt.Println("got", s)
		if role != "deaf" && (role != "stubborn" || s == syscall.SIGTERM) {
			os.Exit(0)
		}
	}
}

// parent supervises a child until it is killed.
func parent() {
	c := newChild(childSpec("polite", os.Stdout), clock.System{}, slog.New(slog.DiscardHandler), func(_ string, id process.Identity) {
		fmt.Println(id.PID)
	})
	c.run(context.Background())
}

func childSpec(role string, out *os.File) spec {
	return spec{
		name: role, orphan: syscall.SIGTERM,
		signals: []stopStep{{syscall.SIGINT, 2 * time.Second}, {syscall.SIGTERM, 2 * time.Second}},
		command: func(context.Context) (*exec.Cmd, func(), error) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{roleEnv + "=" + role}
			cmd.Stdout = out
			return cmd, func() {}, nil
		},
	}
}

// raised is a child under test.
type raised struct {
	*child
	mu   sync.Mutex
	pids []int
	out  string
}

func raise(t *testing.T, role string) *raised {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	r := &raised{out: out.Name()}
	r.child = newChild(childSpec(role, out), clock.System{}, slog.New(slog.DiscardHandler), func(_ string, id process.Identity) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.pids = append(r.pids, id.PID)
	})
	go r.run(context.Background())
	t.Cleanup(func() {
		r.hurry()
		r.signal(syscall.SIGKILL)
		r.stop(context.Background())
		out.Close()
	})
	return r
}

func (r *raised) ready(t *testing.T) Summary {
	t.Helper()
	m := r.message(t)
	if m.Ready == nil {
		t.Fatalf("got %+v, want ready", m)
	}
	return *m.Ready
}

func (r *raised) message(t *testing.T) Message {
	t.Helper()
	select {
	case m := <-r.messages:
		return m
	case <-time.After(20 * time.Second):
		t.Fatal("the child says nothing")
		return Message{}
	}
}

func TestAChildThatDiesComesBack(t *testing.T) {
	r := raise(t, "polite")
	first := r.ready(t)
	r.signal(syscall.SIGKILL)
	second := r.ready(t)
	if first.PID == second.PID {
		t.Error("it is the same process")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pids) != 2 || r.pids[0] != first.PID || r.pids[1] != second.PID {
		t.Errorf("recorded %v, want %d and %d", r.pids, first.PID, second.PID)
	}
}

// Each start is later than the one before.
func TestBackOff(t *testing.T) {
	r := raise(t, "dies")
	var at []time.Duration
	for range 3 {
		r.ready(t)
		at = append(at, clock.System{}.Boot())
	}
	if one, two := at[1]-at[0], at[2]-at[1]; one < restartFirst || two < 2*restartFirst {
		t.Errorf("waited %v and %v", one, two)
	}
}

func TestAChildTellsWhyNot(t *testing.T) {
	m := raise(t, "fails").message(t)
	if m.Error == nil {
		t.Fatalf("got %+v", m)
	}
	if err := m.Error.err(); !errs.Is(err, errs.NoSpace) || !strings.Contains(err.Error(), "no room: short write") {
		t.Errorf("got %v", err)
	}
}

func TestStop(t *testing.T) {
	for role, want := range map[string]string{
		"polite":   "got interrupt\n",
		"stubborn": "got interrupt\ngot terminated\n",
		"deaf":     "got interrupt\ngot terminated\n",
	} {
		t.Run(role, func(t *testing.T) {
			r := raise(t, role)
			pid := r.ready(t).PID
			r.stop(t.Context())
			r.stop(t.Context()) // twice is no harm
			if _, err := process.Identify(pid); err == nil {
				t.Error("it lives")
			}
			if got, _ := os.ReadFile(r.out); string(got) != want {
				t.Errorf("it %q, want %q", got, want)
			}
		})
	}
}

// A second request while it stops leaves out the politest way.
func TestHurry(t *testing.T) {
	r := raise(t, "stubborn")
	r.spec.signals[0].wait = time.Hour
	r.ready(t)
	time.AfterFunc(300*time.Millisecond, r.hurry)
	r.stop(t.Context())
	if got, _ := os.ReadFile(r.out); string(got) != "got interrupt\ngot terminated\n" {
		t.Errorf("it %q", got)
	}
}

// A supervisor that is killed takes its children along, through the kernel.
func TestChildrenFollowTheirSupervisor(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleEnv + "=parent"}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(out)
	s.Scan()
	var pid int
	if _, err := fmt.Sscan(s.Text(), &pid); err != nil {
		t.Fatalf("%q: %v", s.Text(), err)
	}
	id, err := process.Identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	until(t, func() bool { return !id.Alive() })
}

// until waits for something to become true.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("it did not come true")
		}
		_ = clock.System{}.Sleep(t.Context(), 10*time.Millisecond)
	}
}
