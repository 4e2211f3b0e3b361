package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// handoff is one end of a socket pair over which a process that was started ahead
// of its use is told what to be: files with a first byte, then one JSON document.
type handoff struct{ c *net.UnixConn }

// newHandoff makes a pair: our end, and the file the process inherits.
func newHandoff() (handoff, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return handoff{}, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "handoff")
	ours, err := openHandoff(uintptr(fds[0]))
	if err != nil {
		_ = theirs.Close()
	}
	return ours, theirs, err
}

// openHandoff takes an end over from its descriptor.
func openHandoff(fd uintptr) (handoff, error) {
	f := os.NewFile(fd, "handoff")
	if f == nil {
		return handoff{}, errors.New("the handoff's descriptor is not open")
	}
	c, err := net.FileConn(f) // a copy, which is closed on exec
	_ = f.Close()
	if err != nil {
		return handoff{}, fmt.Errorf("open the handoff: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return handoff{}, errors.New("the handoff is no UNIX socket")
	}
	return handoff{u}, nil
}

// send hands files and a document over.
func (h handoff) send(v any, files ...*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	if _, _, err := h.c.WriteMsgUnix([]byte{0}, unix.UnixRights(fds...), nil); err != nil {
		return err
	}
	return json.NewEncoder(h.c).Encode(v)
}

// receive waits for what is sent, with at least so many files; io.EOF when the
// other end went away without a word.
func (h handoff) receive(v any, least int) ([]*os.File, error) {
	first, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4*(maxFiles+2)))
	n, oobn, _, _, err := h.c.ReadMsgUnix(first, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	got, err := rights(oob[:oobn])
	if err == nil && len(got) < least {
		err = fmt.Errorf("%d files came, not %d", len(got), least)
	}
	if err == nil {
		err = json.NewDecoder(h.c).Decode(v)
	}
	if err != nil {
		closeAll(got)
		return nil, err
	}
	return got, nil
}

func rights(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var out []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return out, err
		}
		for _, fd := range fds {
			out = append(out, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	return out, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

func (h handoff) close() { _ = h.c.Close() }
