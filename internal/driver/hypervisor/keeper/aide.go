package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A process beside the hypervisor that ends is started again at once, and then less
// and less often.
const (
	aideAgainFirst = 100 * time.Millisecond
	aideAgainLast  = 10 * time.Second
	// aideSteady is how long one lives that is not in trouble.
	aideSteady = 30 * time.Second
)

// aide is a process beside the hypervisor, watched.
type aide struct {
	Aide
	said *tail

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{} // of this cmd
}

// openAides makes the sockets that the hypervisor is to find listening.
func (k *keeper) openAides() ([]*net.UnixListener, error) {
	var out []*net.UnixListener
	for _, a := range k.cfg.Aides {
		l, err := listen(a.Socket)
		if err != nil {
			return out, err
		}
		out = append(out, l)
	}
	return out, nil
}

// startAides starts all and returns when each is ready, or the first of them failed.
func (k *keeper) startAides() error {
	var failed error
	for _, c := range k.cfg.Aides {
		a := &aide{Aide: c, said: &tail{keep: 4 << 10}}
		k.aides = append(k.aides, a)
		if err := a.start(); err != nil {
			failed = errors.Join(failed, fmt.Errorf("start %s: %w", a.Name, err))
		}
	}
	if failed != nil {
		return failed
	}
	ctx, stop := context.WithCancel(context.Background())
	k.stopAides = stop
	for _, a := range k.aides {
		k.watches.Go(func() { k.watchAide(ctx, a) })
	}
	return nil
}

// start runs the program and returns when it is ready.
func (a *aide) start() error {
	socket, err := a.connect()
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	ready, err := a.readiness()
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(os.Remove(a.Ready), ready.Close()) }()
	cmd := exec.Command(a.Path, append([]string{"--fd", strconv.Itoa(aideFD), "--pid", a.Ready}, a.Argv...)...) //nolint:gosec,noctx // words and numbers of the driver, no text of a user; it outlives any call, and ends with the hypervisor
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.Stdout, cmd.Stderr = a.said, a.said
	cmd.ExtraFiles = []*os.File{socket}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	a.mu.Lock()
	a.cmd, a.ended = cmd, ended
	a.mu.Unlock()
	go func() {
		_ = cmd.Wait()
		close(ended)
		_ = ready.SetReadDeadline(time.Unix(1, 0)) // nobody will say so any more
	}()
	if _, err := ready.Read(make([]byte, 64)); err != nil {
		<-ended
		return fmt.Errorf("it ended: %s", a.said)
	}
	return nil
}

// connect makes a connection to the hypervisor's socket, which the program inherits.
func (a *aide) connect() (*os.File, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: a.Socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return conn.File()
}

// readiness makes the pipe. It is open for writing, too, so that reading waits.
func (a *aide) readiness() (*os.File, error) {
	if err := os.Remove(a.Ready); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := unix.Mkfifo(a.Ready, 0o600); err != nil {
		return nil, err
	}
	if err := os.Lchown(a.Ready, a.Owner, a.Owner); err != nil {
		return nil, err
	}
	fd, err := unix.Open(a.Ready, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), a.Ready), nil
}

// watchAide starts one again that has ended, until ctx ends.
func (k *keeper) watchAide(ctx context.Context, a *aide) {
	wait := aideAgainFirst
	for {
		begun := k.clock.Boot()
		a.mu.Lock()
		ended := a.ended
		a.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
			return
		}
		if k.clock.Boot()-begun > aideSteady {
			wait = aideAgainFirst
		}
		if k.clock.Sleep(ctx, wait) != nil {
			return
		}
		wait = min(2*wait, aideAgainLast)
		fmt.Fprintf(os.Stderr, "keeper: %s ended and is started again; it said: %s\n", a.Name, a.said)
		if err := a.start(); err != nil {
			fmt.Fprintf(os.Stderr, "keeper: start %s: %v\n", a.Name, err)
		}
	}
}

// endAides ends all for good. No other is started meanwhile.
func (k *keeper) endAides() {
	if k.stopAides != nil {
		k.stopAides()
		k.watches.Wait()
	}
	for _, a := range k.aides {
		if a.cmd != nil {
			_ = a.cmd.Process.Kill()
			<-a.ended
		}
	}
}
