package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// stderrFile holds what a keeper says when it breaks.
const stderrFile = "keeper.err"

// titleRoom is the place that a spare keeps for its title: a VM's id.
const titleRoom = "------------------------------------"

// ErrGone says that a spare had ended before it was told anything.
var ErrGone = errors.New("keeper: the spare has ended")

// Spare is a keeper that was started ahead of its guest, with its second stage:
// both wait to be told. Starting two programs takes longer than everything else
// that precedes a hypervisor's exec. One that is never used ends with Close, and
// with the process that started it.
type Spare struct {
	cmd    *exec.Cmd
	line   handoff
	reaped chan struct{}
	once   sync.Once
}

// placeEnv tells a keeper its Place.
const placeEnv = "NOVACRON_KEEPER_PLACE"

// NewSpare starts a keeper from the program at binary, in this place. That it cannot
// be there is told by Start.
func NewSpare(binary string, at Place) (*Spare, error) {
	in, err := json.Marshal(at)
	if err != nil {
		return nil, err
	}
	line, theirs, err := newHandoff()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	cmd := exec.Command(binary, Face, titleRoom) //nolint:noctx // it outlives us; Close and a failed Start kill it
	cmd.Dir, cmd.Env = "/", []string{"GOMAXPROCS=2", "GOTRACEBACK=single", placeEnv + "=" + string(in)}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		line.close()
		return nil, fmt.Errorf("start the keeper: %w", err)
	}
	s := &Spare{cmd: cmd, line: line, reaped: make(chan struct{})}
	go func() { // whenever it ends; its exit says nothing
		_ = cmd.Wait()
		close(s.reaped)
	}()
	return s, nil
}

// Close ends a spare that was not used.
func (s *Spare) Close() { s.once.Do(s.line.close) }

// Gone is closed when the process has ended.
func (s *Spare) Gone() <-chan struct{} { return s.reaped }

// told is what travels to a keeper, with its lock and its standard error.
type told struct {
	Title  string `json:"title"`
	Config Config `json:"config"`
}

// Start makes the spare the keeper of a guest and returns when it reports that
// the hypervisor was started and is written down. What the hypervisor then does
// is to be asked from itself. The files are handed to it, in their order; they are
// the caller's to close. The spare is used up, whatever comes of it; ErrGone means
// that nothing did.
//
// When ctx ends first, the keeper is killed. A hypervisor may have been started by
// then, if proc.json says so.
func (s *Spare) Start(ctx context.Context, title string, c Config, files ...*os.File) (Proc, error) {
	defer s.Close()
	if len(files)+len(c.Aides) > maxFiles {
		return Proc{}, fmt.Errorf("%d files are too many to hand over, %d are possible", len(files)+len(c.Aides), maxFiles)
	}
	c.Exec.Files = len(files) + len(c.Aides)
	lock, err := takeLock(filepath.Join(c.Dir, LockFile))
	if err != nil {
		return Proc{}, err
	}
	// held here until the keeper has reported: it has its own copy by then, or is
	// gone
	defer func() { _ = lock.Close() }()
	stderr, err := os.OpenFile(filepath.Join(c.Dir, stderrFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return Proc{}, err
	}
	defer func() { _ = stderr.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = s.cmd.Process.Kill() })
	if err := s.line.send(told{title, c}, append([]*os.File{lock, stderr}, files...)...); err != nil {
		if !stop() {
			<-s.reaped
			return Proc{}, ctx.Err()
		}
		return Proc{}, errors.Join(ErrGone, err)
	}
	p, err := readReport(ctx, s.line.c)
	if !stop() {
		<-s.reaped
		return Proc{}, ctx.Err()
	}
	// The kernel may close what a killed process had open a moment after its end: what
	// was told then lies there unread, and is thrown away.
	if errors.Is(err, unix.ECONNRESET) && !recorded(c.Dir) {
		err = errors.Join(ErrGone, err)
	}
	return p, err
}

// recorded tells whether a keeper has written down a child, without which nothing
// was started.
func recorded(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, ProcFile))
	return !errors.Is(err, os.ErrNotExist)
}

// takeLock takes the lock of a record folder for a keeper that is handed a copy of
// it: the lock belongs to the open file. So there is no moment between the start
// of a guest and the end of its keeper at which the folder looks free.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another keeper holds this VM: %w", err)
	}
	return f, nil
}

func readReport(ctx context.Context, r io.Reader) (Proc, error) {
	var got report
	err := json.NewDecoder(r).Decode(&got)
	switch {
	case ctx.Err() != nil:
		return Proc{}, ctx.Err()
	case err != nil:
		return Proc{}, fmt.Errorf("the keeper ended without a report: %w", err)
	case got.Error != "":
		return Proc{}, errors.New(got.Error)
	}
	return got.Proc, nil
}

// Running tells whether a keeper holds the record folder: a live one, or one that
// is just starting.
func Running(root *os.Root) (bool, error) {
	f, err := root.OpenFile(LockFile, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	// Asked, not tried: trying would make the folder look taken for a moment.
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
		return false, err
	}
	return l.Type != unix.F_UNLCK, nil
}
