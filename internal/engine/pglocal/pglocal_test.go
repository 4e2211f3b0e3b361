package pglocal

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// testOptions gives a short directory (t.TempDir is too long for a socket with
// some test names) that belongs to a user PostgreSQL runs under.
func testOptions(t *testing.T) Options {
	t.Helper()
	dir, err := os.MkdirTemp("", "nc-pg-") //nolint:usetesting // its path is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	o := Options{Dir: filepath.Join(dir, "pg"), Unsafe: true, Log: io.Discard, MaxConnections: 20}
	if os.Geteuid() == 0 {
		o.Owner = &Owner{UID: 65534, GID: 65534}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func start(ctx context.Context, t *testing.T, o Options) *Cluster {
	t.Helper()
	c, err := Prepare(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

func queryAs(ctx context.Context, t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var out string
	if err := conn.QueryRow(ctx, sql).Scan(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestLife(t *testing.T) {
	ctx, o := deadline(t), testOptions(t)
	c := start(ctx, t, o)
	if got := queryAs(ctx, t, c.OwnerURL(), "SELECT current_user || ' ' || current_database()"); got != "novacron_owner novacron" {
		t.Errorf("owner connects as %q", got)
	}
	if got := queryAs(ctx, t, c.AppURL(), "SELECT current_user || ' ' || pg_has_role('novacron_app', 'member')::text"); got != "novacron_server true" {
		t.Errorf("the application connects as %q", got)
	}
	if got := queryAs(ctx, t, c.AppURL(), "SHOW listen_addresses"); got != "" {
		t.Errorf("listens on %q", got)
	}

	// a second one is refused by name, and may use the first
	_, err := Prepare(ctx, o)
	if !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), strconv.Itoa(c.proc.cmd.Process.Pid)) {
		t.Errorf("a second Prepare: %v", err)
	}
	if err := o.Connect(ctx, nil); err != nil {
		t.Errorf("connect to the running one: %v", err)
	}

	if err := c.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	// it comes back with its data, roles made once
	c = start(ctx, t, o)
	if err := StopRunning(ctx, o); err != nil {
		t.Fatal(err)
	}
	<-c.Exited()
	if err := StopRunning(ctx, o); err != nil {
		t.Errorf("stopping what does not run: %v", err)
	}
}

// A postmaster that was killed leaves its pid file; the number may by now belong
// to anybody, here to this test.
func TestStalePIDFile(t *testing.T) {
	ctx, o := deadline(t), testOptions(t)
	c := start(ctx, t, o)
	if err := unix.Kill(c.proc.cmd.Process.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-c.Exited()
	pidFile := filepath.Join(o.data(), "postmaster.pid")
	raw, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "\n")
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getppid())+"\n"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
	// its backends notice and go; until then the lock is theirs
	if err := StopRunning(ctx, o); err != nil {
		t.Fatal(err)
	}
	start(ctx, t, o)
}

func TestVersionMismatch(t *testing.T) {
	ctx, o := deadline(t), testOptions(t)
	if err := os.MkdirAll(o.data(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.data(), "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Prepare(ctx, o)
	if err == nil || !strings.Contains(err.Error(), "PostgreSQL 9") || !strings.Contains(err.Error(), "pg_upgrade") {
		t.Errorf("got %v", err)
	}
}

func TestRefusals(t *testing.T) {
	ctx := deadline(t)
	if os.Geteuid() == 0 {
		o := testOptions(t)
		o.Owner = nil
		if _, err := Prepare(ctx, o); err == nil || !strings.Contains(err.Error(), "root") {
			t.Errorf("as root: %v", err)
		}
	}
	o := testOptions(t)
	o.SocketDir = "/tmp/" + strings.Repeat("x", 90)
	if _, err := Prepare(ctx, o); err == nil || !strings.Contains(err.Error(), "93 bytes") {
		t.Errorf("a long socket directory: %v", err)
	}
	full := o.explain("postgres", "PANIC: could not write to file: No space left on device", io.EOF)
	if !errs.Is(full, errs.NoSpace) {
		t.Errorf("a full disk: %v", full)
	}
}

// A server that cannot start says why at once.
func TestReadyTellsWhy(t *testing.T) {
	ctx, o := deadline(t), testOptions(t)
	o.Settings = map[string]string{"shared_buffers": "nonsense"}
	c, err := Prepare(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(ctx); err == nil || !strings.Contains(err.Error(), "shared_buffers") {
		t.Errorf("got %v", err)
	}
}

func fakeInstall(t *testing.T, root, version string) {
	t.Helper()
	bin := filepath.Join(root, version, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"postgres", "initdb"} {
		script := "#!/bin/sh\necho '" + tool + " (PostgreSQL) " + version + ".4'\n"
		if err := os.WriteFile(filepath.Join(bin, tool), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFind(t *testing.T) {
	ctx, root := deadline(t), t.TempDir()
	for _, v := range []string{"9", "15", "17"} {
		fakeInstall(t, root, v)
	}
	none := func(context.Context) string { return "" }
	f := finder{pgConfig: none, glob: filepath.Join(root, "*", "bin")}
	cases := []struct {
		name string
		f    finder
		dir  string
		want int
		got  int
		says string
	}{
		{name: "newest", f: f, got: 17},
		{name: "the one that made the data", f: f, want: 15, got: 15},
		{name: "pg_config first", f: finder{pgConfig: func(context.Context) string { return filepath.Join(root, "15", "bin") }, glob: f.glob}, got: 15},
		{name: "an old pg_config is passed over", f: finder{pgConfig: func(context.Context) string { return filepath.Join(root, "9", "bin") }, glob: f.glob}, got: 17},
		{name: "environment", f: finder{env: filepath.Join(root, "15", "bin"), pgConfig: none, glob: f.glob}, got: 15},
		{name: "given", f: f, dir: filepath.Join(root, "15", "bin"), want: 17, got: 15},
		{name: "given and too old", f: f, dir: filepath.Join(root, "9", "bin"), says: "too old"},
		{name: "given and empty", f: f, dir: root, says: "holds no postgres"},
		{name: "nothing", f: finder{pgConfig: none, glob: "/nonexistent"}, says: "apt install postgresql"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b, err := c.f.find(ctx, c.dir, c.want)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %v, want %q", err, c.says)
				}
				return
			}
			if err != nil || b.Major != c.got {
				t.Errorf("got %v, %v, want %d", b, err, c.got)
			}
		})
	}
}
