package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/engine/pglocal"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// urlEnv names an existing PostgreSQL to use, by a superuser's URL.
const urlEnv = "NOVACRON_TEST_DATABASE_URL"

// keeperEnv makes a test binary a keeper of the named directory.
const keeperEnv = "NOVACRON_TEST_PG_KEEPER"

const (
	idle     = 30 * time.Second
	startUp  = time.Minute
	lookOver = time.Second
)

func init() {
	if dir := os.Getenv(keeperEnv); dir != "" {
		if err := keep(dir); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, "storetest keeper:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// server gives a function from database name to superuser URL, starting the
// private server if needed. It is asked once per process.
var server = sync.OnceValues(func() (func(role, db string) string, error) {
	if url := os.Getenv(urlEnv); url != "" {
		return external(url)
	}
	dir := filepath.Join(os.TempDir(), "novacron-test-pg-"+strconv.Itoa(os.Geteuid()))
	opts := options(dir)
	ctx, cancel := context.WithTimeout(context.Background(), startUp)
	defer cancel()
	if err := join(ctx, dir, opts); err != nil {
		return nil, fmt.Errorf("start PostgreSQL for tests in %s: %w", dir, err)
	}
	return func(role, db string) string {
		if role == "" {
			role = pglocal.Superuser
		}
		return withQuery(opts.AdminURL(db), "user", role)
	}, nil
})

func options(dir string) pglocal.Options {
	o := pglocal.Options{
		Dir: filepath.Join(dir, "pg"), Unsafe: true, MaxConnections: 400, Log: io.Discard,
		Settings: map[string]string{
			"autovacuum": "off", "max_wal_size": "4GB", "checkpoint_timeout": "1h",
			"shared_buffers": "128MB", "wal_level": "minimal", "deadlock_timeout": "50ms", "max_wal_senders": "0",
			// a test that leaves a transaction open must not stop the others
			"idle_in_transaction_session_timeout": "60s",
		},
	}
	if os.Geteuid() == 0 {
		o.Owner = unprivileged()
	}
	return o
}

// unprivileged picks the user that runs PostgreSQL for root: by number, since
// the names differ between machines and none of them is needed.
func unprivileged() *pglocal.Owner {
	return &pglocal.Owner{UID: 65534, GID: 65534}
}

// join takes part in the private server: it runs when join returns, and goes on
// at least as long as this process.
func join(ctx context.Context, dir string, opts pglocal.Options) error {
	// open to others for the unprivileged owner of what lies in it
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // see above
		return err
	}
	start, err := openLock(dir, "start")
	if err != nil {
		return err
	}
	defer func() { _ = start.Close() }()
	if err := flock(start, unix.LOCK_EX); err != nil {
		return err
	}
	users, err := openLock(dir, "users")
	if err != nil {
		return err
	}
	if err := flock(users, unix.LOCK_SH); err != nil {
		return err
	}
	stayOpen(users)
	if alive(ctx, opts) {
		return nil
	}
	if err := spawnKeeper(dir); err != nil {
		return err
	}
	return opts.Connect(ctx, nil)
}

// stayOpen keeps a lock until this process ends: the collector closes files that
// nobody refers to.
func stayOpen(f *os.File) {
	go func() {
		<-context.Background().Done()
		_ = f.Close()
	}()
}

func openLock(dir, name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the kit's own directory
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// alive tells whether a server answers now.
func alive(ctx context.Context, opts pglocal.Options) bool {
	gone := errors.New("not running")
	err := opts.Connect(ctx, func() error { return gone })
	return err == nil
}

// spawnKeeper runs this binary again as a keeper, in a session of its own and
// without our pipes: "go test" waits until nobody holds those.
func spawnKeeper(dir string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, "keeper.log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(context.Background(), exe) // it outlives this process
	cmd.Env = append(os.Environ(), keeperEnv+"="+dir)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

// keep runs the server of dir until nobody uses it.
func keep(dir string) error {
	ctx := context.Background()
	opts := options(dir)
	opts.Log = os.Stderr
	if err := pglocal.StopRunning(ctx, opts); err != nil {
		return err
	}
	if err := forgetOldBoot(dir); err != nil {
		return err
	}
	c, err := pglocal.Prepare(ctx, opts)
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	for unused := time.Duration(0); unused < idle; unused += lookOver {
		if err := (clock.System{}).Sleep(ctx, lookOver); err != nil {
			return err
		}
		select {
		case <-c.Exited():
			return errors.New("PostgreSQL ended")
		default:
		}
		if !free(dir) {
			unused = 0
		}
	}
	return retire(ctx, dir, c)
}

// free tells whether no test process holds users.
func free(dir string) bool {
	f, err := openLock(dir, "users")
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	return flock(f, unix.LOCK_EX|unix.LOCK_NB) == nil
}

// retire ends the server unless somebody came in the last moment.
func retire(ctx context.Context, dir string, c *pglocal.Cluster) error {
	start, err := openLock(dir, "start")
	if err != nil {
		return err
	}
	defer func() { _ = start.Close() }()
	if flock(start, unix.LOCK_EX|unix.LOCK_NB) != nil || !free(dir) {
		_ = start.Close()
		return watchOn(ctx, dir, c)
	}
	return c.Stop(ctx)
}

// watchOn goes on after a last-moment arrival.
func watchOn(ctx context.Context, dir string, c *pglocal.Cluster) error {
	for !free(dir) {
		if err := (clock.System{}).Sleep(ctx, lookOver); err != nil {
			return err
		}
	}
	return retire(ctx, dir, c)
}

// forgetOldBoot throws the data away if the machine was booted since: it was
// never flushed to disk.
func forgetOldBoot(dir string) error {
	now, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	mark := filepath.Join(dir, "boot_id")
	then, err := os.ReadFile(mark) //nolint:gosec // the kit's own directory
	if err == nil && string(then) == string(now) {
		return nil
	}
	if err := os.RemoveAll(filepath.Join(dir, "pg")); err != nil { //nolint:gosec // the kit's own directory
		return err
	}
	return os.WriteFile(mark, now, 0o600) //nolint:gosec // the kit's own directory
}
