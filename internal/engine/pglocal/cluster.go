package pglocal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Names within the private PostgreSQL.
const (
	Database  = "novacron"
	Superuser = "postgres"
	OwnerRole = "novacron_owner"
	// AppRole is the group of application logins, AppLogin the login.
	AppRole  = "novacron_app"
	AppLogin = "novacron_server"
)

// ErrRunning says that a server already runs from the directory.
var ErrRunning = errors.New("pglocal: PostgreSQL already runs from this directory")

// maxSocketDir leaves room for "/.s.PGSQL.5432" in sockaddr_un's 107 bytes.
const maxSocketDir = 93

// roomToInit is what a fresh cluster with its first WAL segments takes, with
// room to be used at all.
const roomToInit = 200 * unit.MiB

// Owner is the user that owns the files and runs the processes.
type Owner struct{ UID, GID int }

// Options say where and how.
type Options struct {
	// Dir holds everything; made if missing.
	Dir string
	// SocketDir is where the socket lies; Dir/run by default. At most 93 bytes.
	SocketDir string
	// BinDir of PostgreSQL; found if empty.
	BinDir string
	// Owner of files and processes; nil means the caller. Root must name one.
	Owner *Owner
	// MaxConnections of the server; 100 by default.
	MaxConnections int
	// Unsafe turns durability off: for tests only.
	Unsafe bool
	// Settings are further server settings, such as {"work_mem": "16MB"}.
	Settings map[string]string
	// Log takes the server's log; os.Stderr by default.
	Log   io.Writer
	Clock clock.Clock
}

// Cluster is a private PostgreSQL whose lock this process holds.
type Cluster struct {
	opts Options
	bin  Binaries
	lock *os.File
	tail *tail
	proc *process
}

func (o Options) filled() Options {
	if o.SocketDir == "" {
		o.SocketDir = filepath.Join(o.Dir, "run")
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 100
	}
	if o.Log == nil {
		o.Log = os.Stderr
	}
	if o.Clock == nil {
		o.Clock = clock.System{}
	}
	return o
}

func (o Options) data() string { return filepath.Join(o.Dir, "data") }

// uid tells whose processes these are.
func (o Options) uid() int {
	if o.Owner != nil {
		return o.Owner.UID
	}
	return os.Geteuid()
}

func (o Options) check() error {
	if o.uid() == 0 {
		return errs.New(errs.HostFailure,
			"PostgreSQL never runs as root: name another user to own its data, such as the system user novacron")
	}
	if len(o.SocketDir) > maxSocketDir {
		return errs.New(errs.HostFailure,
			"the socket directory %s is longer than %d bytes, more than a UNIX socket's path can hold: choose a shorter one",
			o.SocketDir, maxSocketDir)
	}
	return nil
}

// Prepare finds the binaries, takes the lock and makes the database cluster if
// there is none. Close, or the end of a started server, gives the lock back.
func Prepare(ctx context.Context, opts Options) (*Cluster, error) {
	o := opts.filled()
	if err := o.check(); err != nil {
		return nil, err
	}
	has, err := dataMajor(o.data())
	if err != nil {
		return nil, err
	}
	bin, err := Find(ctx, o.BinDir, has)
	if err != nil {
		return nil, err
	}
	if err := mismatch(o.data(), has, bin); err != nil {
		return nil, err
	}
	if err := o.makeDirs(); err != nil {
		return nil, err
	}
	lock, err := takeLock(o)
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: o, bin: bin, lock: lock, tail: &tail{}}
	if has == 0 {
		err = c.init(ctx)
	}
	if err == nil {
		err = c.removeStale()
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// Close gives up the lock of a cluster that was never started; a started
// server keeps its own.
func (c *Cluster) Close() error { return c.lock.Close() }

// Version is the major version that runs.
func (c *Cluster) Version() int { return c.bin.Major }

func (o Options) makeDirs() error {
	if err := os.MkdirAll(filepath.Dir(o.Dir), 0o755); err != nil { //nolint:gosec // PostgreSQL runs as another user, who goes through it to his own folder; nothing in it but folders with modes of their own
		return fmt.Errorf("make the parent of %s: %w", o.Dir, err)
	}
	for _, dir := range []string{o.Dir, o.SocketDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
		if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a folder that its owner alone may use; 0600 would shut him out, too
			return fmt.Errorf("close %s to others: %w", dir, err)
		}
		if o.Owner == nil {
			continue
		}
		if err := os.Chown(dir, o.Owner.UID, o.Owner.GID); err != nil {
			return fmt.Errorf("give %s to uid %d: %w", dir, o.Owner.UID, err)
		}
	}
	return nil
}

// init makes the cluster beside its place and renames it when it is whole.
func (c *Cluster) init(ctx context.Context) error {
	o := c.opts
	if err := o.room(); err != nil {
		return err
	}
	fresh := o.data() + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("remove what an earlier initdb left: %w", err)
	}
	args := []string{"-D", fresh, "-U", Superuser, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"}
	if o.Unsafe {
		args = append(args, "--no-sync")
	} else {
		args = append(args, "--data-checksums")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin.Dir, "initdb"), args...) //nolint:gosec // a program from PostgreSQL's own folder, which Find has looked up; the arguments are ours
	o.confine(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return o.explain("initdb", string(out), err)
	}
	if err := os.Rename(fresh, o.data()); err != nil {
		return fmt.Errorf("put the new database cluster into its place: %w", err)
	}
	return nil
}

// confine sets user, place and environment of a PostgreSQL process.
func (o Options) confine(cmd *exec.Cmd) {
	cmd.Dir = o.Dir
	// a terminal's Ctrl-C is for whoever supervises, not for the database
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if o.Owner != nil && o.Owner.UID != os.Geteuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(o.Owner.UID), Gid: uint32(o.Owner.GID)}
	}
	cmd.Env = []string{"LC_ALL=C.UTF-8", "TZ=UTC", "PATH=/usr/bin:/bin", "HOME=" + o.Dir}
}

func (o Options) room() error {
	var st unix.Statfs_t
	if err := unix.Statfs(o.Dir, &st); err != nil {
		return fmt.Errorf("ask for free space at %s: %w", o.Dir, err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < roomToInit {
		return errs.New(errs.NoSpace, "a database needs %s and %s has %s free", unit.FormatBytes(roomToInit), o.Dir, unit.FormatBytes(free))
	}
	return nil
}

// explain turns a failed program into an error that says what to do.
func (o Options) explain(what, output string, err error) error {
	last := lastLines(output, 5)
	cause := fmt.Errorf("%w: %s", err, last)
	switch {
	case strings.Contains(output, "could not look up effective user ID"):
		// asked from the system's own lookup, which knows users of directories, too
		return errs.New(errs.HostFailure, "user %d has no passwd entry, and PostgreSQL does not run without one: "+
			"add one, or run as another user", o.uid()).Because(cause)
	case strings.Contains(output, "No space left on device"):
		return errs.New(errs.NoSpace, "the disk that holds %s is full: free some space and start again", o.Dir).Because(cause)
	case strings.Contains(output, "Permission denied"):
		return errs.New(errs.HostFailure, "uid %d may not use %s: every directory above it must be open to that user (mode x)",
			o.uid(), o.Dir).Because(cause)
	default:
		return errs.New(errs.HostFailure, "%s failed in %s", what, o.Dir).Because(cause)
	}
}

// OwnerURL connects as the role that owns the database and migrates it.
func (o Options) OwnerURL() string { return o.url(OwnerRole, Database) }

// AppURL connects as the application.
func (o Options) AppURL() string { return o.url(AppLogin, Database) }

// AdminURL connects as superuser, to the database given.
func (o Options) AdminURL(database string) string { return o.url(Superuser, database) }

func (o Options) url(role, database string) string {
	q := url.Values{"host": {o.filled().SocketDir}, "user": {role}}
	return "postgres:///" + database + "?" + q.Encode()
}

// OwnerURL connects as the role that owns the database and migrates it.
func (c *Cluster) OwnerURL() string { return c.opts.OwnerURL() }

// AppURL connects as the application.
func (c *Cluster) AppURL() string { return c.opts.AppURL() }

func (o Options) settings() []string {
	set := map[string]string{
		"listen_addresses":        "",
		"unix_socket_directories": o.SocketDir,
		"unix_socket_permissions": "0700",
		"port":                    "5432",
		"max_connections":         strconv.Itoa(o.MaxConnections),
		"log_destination":         "stderr",
		"logging_collector":       "off",
		"log_line_prefix":         "%m [%p] ",
		"timezone":                "UTC",
		// statements here are short: to compile one takes longer than to run it
		"jit": "off",
		// with five others under way a commit waits this long, in microseconds, for
		// those that the same flush can carry
		"commit_delay":    "400",
		"commit_siblings": "5",
	}
	if o.Unsafe {
		for _, k := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
			set[k] = "off"
		}
	}
	maps.Copy(set, o.Settings)
	args := []string{"-D", o.data()}
	for k, v := range set {
		args = append(args, "-c", k+"="+v)
	}
	return args
}
