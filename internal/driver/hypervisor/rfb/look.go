package rfb

import (
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"io"
)

// mostSide bounds a screen that is looked at.
const mostSide = 8192

// Look says hello as a viewer that shares the screen, asks for the whole of it and
// gives the first picture that comes.
func Look(c io.ReadWriter) (*image.RGBA, error) {
	size, err := hello(c)
	if err != nil {
		return nil, err
	}
	// 32 bits as Serve sends them, the raw encoding alone, all of the screen
	ask := []byte{setPixelFormat, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, setEncodings, 0, 0, 1, 0, 0, 0, 0, updateRequest, 0, 0, 0, 0, 0}
	ask = binary.BigEndian.AppendUint16(ask, uint16(size.X))
	ask = binary.BigEndian.AppendUint16(ask, uint16(size.Y))
	if _, err := c.Write(ask); err != nil {
		return nil, err
	}
	picture := image.NewRGBA(image.Rectangle{Max: size})
	return picture, update(c, picture)
}

// hello says what a viewer says until it is told the size of the screen.
func hello(c io.ReadWriter) (size image.Point, err error) {
	kinds := make([]byte, 1)
	steps := []func() error{
		func() error { return read(c, make([]byte, len(version))) },
		func() error { return write(c, version) },
		func() error { return read(c, kinds) },
		func() error { return read(c, make([]byte, kinds[0])) },
		func() error { return write(c, "\x01") }, // no security
		func() error { return read(c, make([]byte, 4)) },
		func() error { return write(c, "\x01") }, // others may look, too
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return size, err
		}
	}
	about := make([]byte, 24)
	if err := read(c, about); err != nil {
		return size, err
	}
	if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(about[20:]))); err != nil {
		return size, err
	}
	size = image.Pt(int(binary.BigEndian.Uint16(about)), int(binary.BigEndian.Uint16(about[2:])))
	if size.X < 1 || size.Y < 1 || size.X > mostSide || size.Y > mostSide {
		return size, fmt.Errorf("%w: a screen of %v", ErrProtocol, size)
	}
	return size, nil
}

func read(r io.Reader, all []byte) error {
	_, err := io.ReadFull(r, all)
	return err
}

func write(w io.Writer, s string) error {
	_, err := io.WriteString(w, s)
	return err
}

// update reads one update of raw rectangles.
func update(c io.Reader, into *image.RGBA) error {
	head := make([]byte, 4)
	if _, err := io.ReadFull(c, head); err != nil {
		return err
	}
	if head[0] != frameBufferUpdate {
		return fmt.Errorf("%w: a server's message of kind %d", ErrProtocol, head[0])
	}
	for range binary.BigEndian.Uint16(head[2:]) {
		if err := rectangle(c, into); err != nil {
			return err
		}
	}
	return nil
}

func rectangle(c io.Reader, into *image.RGBA) error {
	head := make([]byte, 12)
	if _, err := io.ReadFull(c, head); err != nil {
		return err
	}
	x, y := int(binary.BigEndian.Uint16(head)), int(binary.BigEndian.Uint16(head[2:]))
	w, h := int(binary.BigEndian.Uint16(head[4:])), int(binary.BigEndian.Uint16(head[6:]))
	if binary.BigEndian.Uint32(head[8:]) != rawEncoding || !image.Rect(x, y, x+w, y+h).In(into.Bounds()) {
		return fmt.Errorf("%w: a rectangle that was not asked for", ErrProtocol)
	}
	row := make([]byte, 4*w)
	for j := range h {
		if _, err := io.ReadFull(c, row); err != nil {
			return err
		}
		for i := range w {
			p := row[4*i:]
			into.SetRGBA(x+i, y+j, color.RGBA{R: p[2], G: p[1], B: p[0], A: 255})
		}
	}
	return nil
}
