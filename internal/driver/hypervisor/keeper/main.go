package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// Main is the keeper process; the program calls it first of all when its first
// argument is Face. The rest of args is a title for people who look at a list of
// processes. It returns the exit code.
func Main([]string) int {
	debug.SetGCPercent(25)
	ignoreSignals()
	unix.Umask(0o077)
	unix.CloseOnExec(lockFD) // held for this process's life, and by it alone
	k := &keeper{clock: clock.System{}}
	err := json.NewDecoder(os.Stdin).Decode(&k.cfg)
	if err == nil {
		err = k.start()
	}
	r := report{Proc: k.proc}
	if err != nil {
		r.Error = err.Error()
	}
	// An agent that is gone does not read this; the guest is kept all the same.
	if b, err := json.Marshal(r); err == nil {
		_, _ = os.Stdout.Write(append(b, '\n'))
	}
	detach()
	if err != nil {
		k.abort()
		return 1
	}
	if err := k.keep(); err != nil {
		fmt.Fprintln(os.Stderr, "keeper:", err)
		return 1
	}
	return 0
}

// ignoreSignals lets what is meant for a group of processes pass. Handlers are
// not inherited over exec, as ignoring would be.
func ignoreSignals() {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE, unix.SIGQUIT)
	go func() {
		for range ch {
		}
	}()
}

// detach lets go of the agent's pipes.
func detach() {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer func() { _ = null.Close() }()
	for _, fd := range []int{0, 1} {
		_ = unix.Dup3(int(null.Fd()), fd, 0)
	}
}

// keeper is the state of the process.
type keeper struct {
	cfg   Config
	clock clock.Clock
	root  *os.Root
	proc  Proc
	child *exec.Cmd
	said  *tail
	con   *console
}

func (k *keeper) start() error {
	var err error
	if k.root, err = os.OpenRoot(k.cfg.Dir); err != nil {
		return fmt.Errorf("open the record folder: %w", err)
	}
	if err := join(k.cfg.Cgroups); err != nil {
		return err
	}
	control, err := listen(k.cfg.Control)
	if err != nil {
		return err
	}
	defer func() { _ = control.Close() }()
	serial, err := listen(k.cfg.Serial)
	if err != nil {
		return err
	}
	defer func() { _ = serial.Close() }()
	own, err := listen(k.cfg.Socket)
	if err != nil {
		return err
	}
	if k.con, err = newConsole(k.root, own, k.cfg.LogBytes, k.clock); err != nil {
		return err
	}
	if err := k.spawn(control, serial); err != nil {
		return err
	}
	if err := k.con.attach(k.cfg.Serial); err != nil {
		return fmt.Errorf("attach to the serial console: %w", err)
	}
	return nil
}

// listen makes a UNIX socket that only its user may connect to, from the first
// moment: its mode comes from the umask.
func listen(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	defer unix.Umask(unix.Umask(0o177))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}

// spawn starts the child, writes down who it is, and only then lets it become the
// hypervisor.
func (k *keeper) spawn(control, serial *net.UnixListener) error {
	files := make([]*os.File, 0, 3)
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for _, l := range []*net.UnixListener{control, serial} {
		f, err := l.File()
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	spec, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	files = append(files, spec)
	defer func() { _ = tell.Close() }()
	k.said = &tail{keep: 4 << 10}
	// The program this keeper was started from, even if its file was replaced or
	// removed by an upgrade since.
	k.child = exec.Command("/proc/self/exe", ExecFace) //nolint:noctx // it ends when its guest does
	k.child.Dir, k.child.Env = "/", []string{"GOMAXPROCS=1"}
	k.child.Stderr, k.child.ExtraFiles = k.said, files
	if err := k.child.Start(); err != nil {
		return fmt.Errorf("start the hypervisor's process: %w", err)
	}
	if err := k.record(); err != nil {
		return fmt.Errorf("write down the processes: %w", err)
	}
	if err := json.NewEncoder(tell).Encode(k.cfg.Exec); err != nil {
		return fmt.Errorf("tell the hypervisor's process: %w", err)
	}
	return nil
}

func (k *keeper) record() error {
	var err error
	k.proc.Epoch = k.cfg.Epoch
	if k.proc.Keeper, err = process.Identify(os.Getpid()); err != nil {
		return err
	}
	if k.proc.Hypervisor, err = process.Identify(k.child.Process.Pid); err != nil {
		return err
	}
	return durable.WriteJSON(k.root, ProcFile, k.proc)
}

// abort ends what a failed start has begun.
func (k *keeper) abort() {
	if k.child != nil && k.child.Process != nil {
		_ = k.child.Process.Kill()
		_ = k.child.Wait()
	}
}

// keep stays until the hypervisor has ended and that is written down.
func (k *keeper) keep() error {
	err := k.child.Wait()
	exit := Exit{Epoch: k.cfg.Epoch, Code: k.child.ProcessState.ExitCode(), At: k.clock.Now(), Said: k.said.String()}
	if ws, ok := k.child.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		exit.Signal = int(ws.Signal())
	}
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		exit.Said += "\nkeeper: " + err.Error()
	}
	k.con.finish()
	if err := durable.WriteJSON(k.root, ExitFile, exit); err != nil {
		return fmt.Errorf("write down the end: %w", err)
	}
	k.con.dismiss()
	return nil
}
