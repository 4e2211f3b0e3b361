package process_test

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/hypervisor/process"
)

// sleeper starts a process that waits until the test ends.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	return cmd
}

func await(t *testing.T, ch <-chan struct{}, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	select {
	case <-ch:
	case <-ctx.Done():
		t.Fatalf("waited for %s", what)
	}
}

func TestHandleSignalsAndSeesTheEnd(t *testing.T) {
	cmd := sleeper(t)
	i, err := process.Identify(cmd.Process.Pid)
	if err != nil || !i.Alive() {
		t.Fatalf("%+v, %v", i, err)
	}
	h, err := process.Open(i)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Close() }()
	select {
	case <-h.Ended():
		t.Fatal("ended before it ended")
	default:
	}
	if err := h.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, h.Ended(), "the end")
	if i.Alive() {
		t.Fatal("a zombie counts as alive")
	}
	_ = cmd.Wait()
	if err := h.Signal(unix.SIGKILL); !errors.Is(err, process.ErrGone) {
		t.Fatalf("signal to a process that is gone: %v", err)
	}
	if _, err := process.Open(i); !errors.Is(err, process.ErrGone) {
		t.Fatalf("open of a process that is gone: %v", err)
	}
}

// A pid that was given to another process is not the process written down: it is
// neither alive nor opened, so it cannot be signalled.
func TestRecycledPidIsNobody(t *testing.T) {
	cmd := sleeper(t)
	i, err := process.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	earlier, otherBoot := i, i
	earlier.Start--
	otherBoot.Boot = "00000000-0000-0000-0000-000000000000"
	for _, wrong := range []process.Identity{earlier, otherBoot, {}} {
		if wrong.Alive() {
			t.Errorf("%+v is alive", wrong)
		}
		if _, err := process.Open(wrong); !errors.Is(err, process.ErrGone) {
			t.Errorf("open of %+v: %v", wrong, err)
		}
	}
	if !i.Alive() {
		t.Fatal("the other process was harmed")
	}
}
