package rfb

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"image"
	"io"
)

// Serve shows one client a picture that does not move, until it goes.
func Serve(c io.ReadWriter, name string, picture image.Image) error {
	in := bufio.NewReader(c)
	if err := greet(c, in); err != nil {
		return err
	}
	size := picture.Bounds().Size()
	hello := binary.BigEndian.AppendUint16(nil, uint16(size.X))
	hello = binary.BigEndian.AppendUint16(hello, uint16(size.Y))
	// 32 bits, little endian, true colour: blue, green, red in bytes 0, 1, 2
	hello = append(hello, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0)
	hello = binary.BigEndian.AppendUint32(hello, uint32(len(name)))
	if _, err := c.Write(append(hello, name...)); err != nil {
		return err
	}
	var seen requests
	v := view{in: in, out: &seen}
	for {
		if err := v.message(); err != nil {
			return err
		}
		if !seen.update() {
			continue
		}
		if _, err := c.Write(frame(picture)); err != nil {
			return err
		}
	}
}

// greet agrees on version and on no security: who comes so far may look.
func greet(c io.Writer, in io.Reader) error {
	if _, err := io.WriteString(c, version); err != nil {
		return err
	}
	said := make([]byte, len(version))
	if _, err := io.ReadFull(in, said); err != nil {
		return err
	}
	if string(said) != version {
		return fmt.Errorf("%w: a client of version %q", ErrProtocol, said)
	}
	if _, err := c.Write([]byte{1, securityNone}); err != nil {
		return err
	}
	var chosen [1]byte
	if _, err := io.ReadFull(in, chosen[:]); err != nil {
		return err
	}
	if _, err := c.Write([]byte{0, 0, 0, 0}); err != nil { // it is well
		return err
	}
	_, err := io.ReadFull(in, chosen[:])
	return err
}

// requests notices whether what was said last asks for the picture anew.
type requests struct{ last []byte }

// Write implements io.Writer.
func (r *requests) Write(p []byte) (int, error) {
	r.last = append(r.last, p...)
	return len(p), nil
}

func (r *requests) update() bool {
	// an incremental request waits for a change, which does not come
	is := len(r.last) == 10 && r.last[0] == updateRequest && r.last[1] == 0
	r.last = r.last[:0]
	return is
}

// frame is the whole picture as one update.
func frame(picture image.Image) []byte {
	b := picture.Bounds()
	out := []byte{frameBufferUpdate, 0, 0, 1, 0, 0, 0, 0}
	out = binary.BigEndian.AppendUint16(out, uint16(b.Dx()))
	out = binary.BigEndian.AppendUint16(out, uint16(b.Dy()))
	out = binary.BigEndian.AppendUint32(out, rawEncoding)
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r, g, b, _ := picture.At(x, y).RGBA() // of 16 bits each
			out = append(out, byte(b>>8), byte(g>>8), byte(r>>8), 0)
		}
	}
	return out
}
