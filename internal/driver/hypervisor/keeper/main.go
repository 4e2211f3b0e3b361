package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/driver/jail"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// Main is the keeper process; the program calls it first of all when its first
// argument is Face. The one argument that follows is room for a title, for people
// who look at a list of processes. It returns the exit code.
func Main(args []string) int {
	debug.SetGCPercent(25)
	ignoreSignals()
	unix.Umask(0o077)
	line, err := openHandoff(lineFD)
	if err != nil {
		return 1
	}
	k := &keeper{clock: clock.System{}}
	begun := k.begin(os.Getenv(placeEnv)) // both are ready before anybody asks
	var told told
	files, err := line.receive(&told, 2)
	if err != nil {
		k.abort() // whoever started us is gone, or did not need us
		return 1
	}
	k.cfg, k.lock, k.files = told.Config, files[0], files[2:] // the lock is held for this process's life
	_ = unix.Dup3(int(files[1].Fd()), 2, 0)
	_ = files[1].Close()
	retitle(args, told.Title)
	if err = begun; err == nil {
		err = k.start()
	}
	r := report{Proc: k.proc}
	if err != nil {
		r.Error = err.Error()
	}
	// An agent that is gone does not read this; the guest is kept all the same.
	if b, err := json.Marshal(r); err == nil {
		_, _ = line.c.Write(append(b, '\n'))
	}
	line.close()
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

// retitle writes over the argument that keeps room for it: the memory that the
// kernel shows of a process.
func retitle(args []string, title string) {
	if len(args) == 0 || title == "" {
		return
	}
	room := unsafe.Slice(unsafe.StringData(args[0]), len(args[0]))
	n := copy(room, title)
	for ; n < len(room); n++ {
		room[n] = ' '
	}
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

// keeper is the state of the process.
type keeper struct {
	cfg   Config
	clock clock.Clock
	lock  *os.File
	root  *os.Root
	proc  Proc
	child *exec.Cmd
	// tell is the way to the child until it is the hypervisor
	tell handoff
	// files are for the child alone
	files []*os.File
	said  *tail
	con   *console
	aides []*aide
	// stopAides ends the watches over them
	stopAides func()
	watches   sync.WaitGroup
}

func (k *keeper) start() error {
	var err error
	if k.root, err = os.OpenRoot(k.cfg.Dir); err != nil {
		return fmt.Errorf("open the record folder: %w", err)
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
	nets, err := k.openAides()
	defer closeListeners(nets)
	if err != nil {
		return err
	}
	if err := k.become(append([]*net.UnixListener{control, serial}, nets...)); err != nil {
		return err
	}
	if err := k.con.attach(k.cfg.Serial); err != nil {
		return fmt.Errorf("attach to the serial console: %w", err)
	}
	return k.startAides()
}

func closeListeners(all []*net.UnixListener) {
	for _, l := range all {
		_ = l.Close()
	}
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

// begin puts this process into its cgroups and starts the child in its own. What
// the child becomes is in them from its first instruction on.
func (k *keeper) begin(place string) error {
	var at Place
	if err := json.Unmarshal([]byte(place), &at); err != nil {
		return fmt.Errorf("read where to be: %w", err)
	}
	if err := join(os.Getpid(), at.Groups.Keeper); err != nil {
		return err
	}
	if err := k.spawn(at.Jail); err != nil {
		return err
	}
	return join(k.child.Process.Pid, at.Groups.Guest)
}

// join puts a process into cgroups.
func join(pid int, cgroups []string) error {
	for _, dir := range cgroups {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("join the VM's cgroup: %w", err)
		}
	}
	return nil
}

// spawn starts the child, which builds its jail and waits to be told what to become.
func (k *keeper) spawn(walls *jail.Spec) error {
	tell, theirs, err := newHandoff()
	if err != nil {
		return err
	}
	defer func() { _ = theirs.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	k.said = &tail{keep: 4 << 10}
	// The program this keeper was started from, even if its file was replaced or
	// removed by an upgrade since.
	cmd := exec.Command("/proc/self/exe", ExecFace) //nolint:noctx // it ends when its guest does
	cmd.Dir, cmd.Env = "/", []string{"GOMAXPROCS=1"}
	cmd.Stderr = k.said
	cmd.ExtraFiles = []*os.File{null, null, theirs} // the first two keep places
	if walls != nil {
		in, err := json.Marshal(walls)
		if err != nil {
			return err
		}
		cmd.Env = append(cmd.Env, jailEnv+"="+string(in))
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: jail.Flags}
	}
	if err := cmd.Start(); err != nil {
		tell.close()
		return fmt.Errorf("start the hypervisor's process: %w", err)
	}
	k.child, k.tell = cmd, tell
	return nil
}

// become writes down who the child is, and only then lets it become the
// hypervisor. The listeners of aides come last, as the configuration promised.
func (k *keeper) become(sockets []*net.UnixListener) error {
	defer k.tell.close()
	var files []*os.File
	defer func() { closeAll(append(files, k.files...)) }()
	for _, l := range sockets {
		f, err := l.File()
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	if err := k.record(); err != nil {
		return fmt.Errorf("write down the processes: %w", err)
	}
	all := slices.Concat(files[:2], k.files, files[2:])
	if err := k.tell.send(k.cfg.Exec, all...); err != nil {
		_ = k.child.Wait()
		k.child = nil
		return fmt.Errorf("tell the hypervisor's process: %w; it said: %s", err, k.said)
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
	k.endAides()
	if k.child != nil {
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
	k.endAides()
	k.con.finish()
	if err := durable.WriteJSON(k.root, ExitFile, exit); err != nil {
		return fmt.Errorf("write down the end: %w", err)
	}
	k.con.dismiss()
	return nil
}
