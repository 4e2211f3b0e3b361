package qmp_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
)

// startQEMU runs a machine without a guest; its control socket is open before it
// starts, as in production.
func startQEMU(t testing.TB, ctx context.Context) string {
	t.Helper()
	path := filepath.Join(hypertest.ShortDir(t), "control")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
		"-machine", "q35", "-accel", "tcg", "-m", "16", "-S",
		"-chardev", "socket,id=control,fd=3,server=on,wait=off", "-mon", "chardev=control,mode=control")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return path
}

func TestRealQEMU(t *testing.T) {
	ctx := deadline(t)
	path := startQEMU(t, ctx)
	events := make(chan string, 16)
	opt := qmp.Options{OnEvent: func(e qmp.Event) { events <- e.Name }}
	c, err := qmp.Dial(ctx, path, opt)
	if err != nil {
		t.Fatal(err)
	}
	var is struct{ Status string }
	for _, step := range []struct{ command, event, status string }{
		{"query-status", "", "prelaunch"}, {"cont", "RESUME", "running"}, {"stop", "STOP", "paused"},
	} {
		if err := c.Execute(ctx, step.command, nil, nil); err != nil {
			t.Fatal(err)
		}
		if step.event != "" {
			select { // delivered before the reply, so already there
			case got := <-events:
				if got != step.event {
					t.Fatalf("%s caused %s", step.command, got)
				}
			default:
				t.Fatalf("the reply to %s overtook its event", step.command)
			}
		}
		if err := c.Execute(ctx, "query-status", nil, &is); err != nil || is.Status != step.status {
			t.Fatalf("after %s the status is %q, %v", step.command, is.Status, err)
		}
	}
	var schema []any // the longest answer there is
	if err := c.Execute(ctx, "query-qmp-schema", nil, &schema); err != nil || len(schema) < 100 {
		t.Fatalf("the schema has %d entries, %v", len(schema), err)
	}
	if err := c.Execute(ctx, "no-such-command", nil, nil); err == nil {
		t.Fatal("a command that does not exist succeeded")
	}
	_ = c.Close()
	if c, err = qmp.Dial(ctx, path, opt); err != nil {
		t.Fatalf("dialling again: %v", err)
	}
	_ = c.Execute(ctx, "quit", nil, nil)
	select {
	case <-c.Done():
	case <-ctx.Done():
		t.Fatal("the end of QEMU went unnoticed")
	}
}
