package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// stderrFile holds what a keeper says when it breaks.
const stderrFile = "keeper.err"

// Start runs a keeper from the program at binary and returns when it reports
// that the hypervisor was started and is written down. What the hypervisor then
// does is to be asked from itself.
//
// When ctx ends first, the keeper is killed. A hypervisor may have been started by
// then, if proc.json says so.
func Start(ctx context.Context, binary, title string, c Config) (Proc, error) {
	in, err := json.Marshal(c)
	if err != nil {
		return Proc{}, err
	}
	lock, err := takeLock(filepath.Join(c.Dir, LockFile))
	if err != nil {
		return Proc{}, err
	}
	defer func() { _ = lock.Close() }()
	stderr, err := os.OpenFile(filepath.Join(c.Dir, stderrFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return Proc{}, err
	}
	defer func() { _ = stderr.Close() }()
	r, w, err := os.Pipe()
	if err != nil {
		return Proc{}, err
	}
	defer func() { _ = r.Close() }()
	cmd := exec.Command(binary, Face, title) //nolint:noctx // it outlives us; a failed start kills it below
	cmd.Dir, cmd.Env = "/", []string{"GOMAXPROCS=2", "GOTRACEBACK=single"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), w, stderr
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return Proc{}, fmt.Errorf("start the keeper: %w", err)
	}
	reaped := make(chan struct{})
	go func() { // whenever it ends; its exit says nothing
		_ = cmd.Wait()
		close(reaped)
	}()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	p, err := readReport(ctx, r)
	if !stop() {
		<-reaped
		return Proc{}, ctx.Err()
	}
	return p, err
}

// takeLock takes the lock of a record folder for a keeper that is about to be
// started and inherits it: the lock belongs to the open file. So there is no moment between the start of a keeper
// and its end at which the folder looks free.
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
