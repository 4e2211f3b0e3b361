// Package process holds on to a process of the host without ever mistaking
// another one for it.
//
// A pid alone is a name that the kernel gives away again. An Identity adds the
// boot it belongs to and the moment the process started, which together name one
// process for ever and can be written down. Open turns an identity back into a
// Handle, a pidfd that was checked after it was opened: signals through it reach
// that process or nobody.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrGone says that the process no longer exists, whoever has its pid now.
var ErrGone = errors.New("the process is gone")

// Identity names one process for ever.
type Identity struct {
	PID int `json:"pid"`
	// Start is field 22 of /proc/PID/stat: clock ticks from boot to its start.
	Start uint64 `json:"start"`
	// Boot is the kernel's boot id.
	Boot string `json:"boot"`
}

// IsZero tells whether it names nothing.
func (i Identity) IsZero() bool { return i.PID == 0 }

// bootID reads the kernel's boot id once; it cannot change while we run.
var bootID = sync.OnceValues(func() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
})

// Identify names the process that has the pid now.
func Identify(pid int) (Identity, error) {
	boot, err := bootID()
	if err != nil {
		return Identity{}, err
	}
	s, err := readStat(pid)
	if err != nil {
		return Identity{}, err
	}
	return Identity{PID: pid, Start: s.start, Boot: boot}, nil
}

// Alive tells whether the process still executes; a zombie does not.
func (i Identity) Alive() bool {
	boot, err := bootID()
	if err != nil || boot != i.Boot {
		return false
	}
	s, err := readStat(i.PID)
	return err == nil && s.start == i.Start && s.state != 'Z' && s.state != 'X'
}

type stat struct {
	state byte
	start uint64
}

func readStat(pid int) (stat, error) {
	if pid <= 0 {
		return stat{}, ErrGone
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return stat{}, ErrGone
	}
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// parseStat reads the fields after the command, which is in brackets and may
// itself hold anything.
func parseStat(b []byte) (stat, error) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return stat{}, fmt.Errorf("a stat line of another form: %.40q", b)
	}
	fields := strings.Fields(string(b[end+1:]))
	const first, state, start = 3, 3, 22 // numbers of proc(5)
	if len(fields) <= start-first {
		return stat{}, fmt.Errorf("a stat line of another form: %.40q", b)
	}
	ticks, err := strconv.ParseUint(fields[start-first], 10, 64)
	if err != nil {
		return stat{}, err
	}
	letter := fields[state-first]
	if len(letter) != 1 || letter[0] < 'A' || letter[0] > 'z' {
		return stat{}, fmt.Errorf("a stat line with the state %.10q", letter)
	}
	return stat{state: letter[0], start: ticks}, nil
}

// Handle holds one process.
type Handle struct {
	id    Identity
	fd    *os.File
	ended chan struct{}
}

// Open takes hold of the process that the identity names, or gives ErrGone.
func Open(i Identity) (*Handle, error) {
	fd, err := unix.PidfdOpen(i.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("hold process %d: %w", i.PID, err)
	}
	h := &Handle{id: i, fd: os.NewFile(uintptr(fd), "pidfd"), ended: make(chan struct{})}
	// Checked after the pidfd was opened: it holds this process or an older one
	// that is gone, never a younger one.
	if !i.Alive() {
		_ = h.fd.Close()
		return nil, ErrGone
	}
	go h.watch()
	return h, nil
}

// ID names the process.
func (h *Handle) ID() Identity { return h.id }

// Ended is closed once the process has ended. It is never closed after Close.
func (h *Handle) Ended() <-chan struct{} { return h.ended }

// watch waits for the pidfd to become readable, which is the end of the process.
func (h *Handle) watch() {
	raw, err := h.fd.SyscallConn()
	if err != nil {
		return
	}
	gone := false
	err = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0
		return gone
	})
	if err == nil && gone {
		close(h.ended)
	}
}

// Signal sends a signal to the process, or gives ErrGone.
func (h *Handle) Signal(s unix.Signal) error {
	raw, err := h.fd.SyscallConn()
	if err != nil {
		return err
	}
	sent := error(nil)
	if err := raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), s, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(sent, unix.ESRCH) {
		return ErrGone
	}
	return sent
}

// Close lets go of the process, which goes on.
func (h *Handle) Close() error { return h.fd.Close() }
