package rfb

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrProtocol is in the chain of every error about what a client says.
var ErrProtocol = errors.New("this is not the VNC protocol")

// ViewOnly copies what a client says to a server and leaves out all that reaches the
// guest: keys, pointer and clipboard. It returns when either side ends, or with
// ErrProtocol when the client says what cannot be followed.
func ViewOnly(server io.Writer, client io.Reader) error {
	v := view{in: bufio.NewReader(client), out: server}
	// its version, the kind of security, and whether it shares the screen
	if err := v.pass(int64(len(version)) + 1 + 1); err != nil {
		return err
	}
	for {
		if err := v.message(); err != nil {
			return err
		}
	}
}

type view struct {
	in  *bufio.Reader
	out io.Writer
}

func (v *view) pass(n int64) error {
	_, err := io.CopyN(v.out, v.in, n)
	return err
}

func (v *view) drop(n int64) error {
	_, err := io.CopyN(io.Discard, v.in, n)
	return err
}

// message handles one message.
func (v *view) message() error {
	kind, err := v.in.ReadByte()
	if err != nil {
		return err
	}
	switch kind {
	case keyEvent:
		return v.drop(7)
	case pointerEvent:
		return v.drop(5)
	case clientCutText:
		return v.cutText()
	case qemuMessage:
		return v.qemu()
	}
	if err := v.in.UnreadByte(); err != nil {
		return err
	}
	switch kind {
	case setPixelFormat:
		return v.pass(20)
	case updateRequest:
		return v.pass(10)
	case setEncodings:
		head, err := v.in.Peek(4)
		if err != nil {
			return err
		}
		return v.pass(4 + 4*int64(binary.BigEndian.Uint16(head[2:])))
	}
	return fmt.Errorf("%w: a client's message of kind %d", ErrProtocol, kind)
}

func (v *view) cutText() error {
	var head [7]byte
	if _, err := io.ReadFull(v.in, head[:]); err != nil {
		return err
	}
	n := int64(int32(binary.BigEndian.Uint32(head[3:])))
	if n = max(n, -n); n > mostCutText {
		return fmt.Errorf("%w: %d bytes are pasted", ErrProtocol, n)
	}
	return v.drop(n)
}

// qemu drops QEMU's own messages: keys, and sound that nobody asked for.
func (v *view) qemu() error {
	kind, err := v.in.ReadByte()
	if err != nil {
		return err
	}
	switch kind {
	case qemuExtendedKey:
		return v.drop(10)
	case qemuAudio:
		var op [2]byte
		if _, err := io.ReadFull(v.in, op[:]); err != nil {
			return err
		}
		if binary.BigEndian.Uint16(op[:]) == qemuAudioFormat {
			return v.drop(6)
		}
		return nil
	}
	return fmt.Errorf("%w: a client's message of QEMU's kind %d", ErrProtocol, kind)
}
