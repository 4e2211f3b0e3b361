package rfb_test

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"io"
	"net"
	"testing"

	"github.com/novacron/novacron/internal/driver/hypervisor/rfb"
)

func picture() *image.RGBA {
	p := image.NewRGBA(image.Rect(0, 0, 20, 10))
	for x := range 20 {
		p.SetRGBA(x, x%10, color.RGBA{R: uint8(x), G: 100, B: 200, A: 255})
		p.SetRGBA(x, (x+1)%10, color.RGBA{A: 255})
	}
	return p
}

// serve gives a viewer's end of a served picture, filtered or not.
func serve(t *testing.T, filtered bool) net.Conn {
	t.Helper()
	server, viewer := net.Pipe()
	go func() {
		_ = rfb.Serve(server, "test", picture())
		_ = server.Close()
	}()
	if !filtered {
		t.Cleanup(func() { _ = viewer.Close() })
		return viewer
	}
	inner, outer := net.Pipe()
	go func() { _, _ = io.Copy(inner, viewer); _ = inner.Close() }()
	go func() { _ = rfb.ViewOnly(viewer, inner); _ = viewer.Close() }()
	t.Cleanup(func() { _ = outer.Close() })
	return outer
}

// What is served is what a viewer sees, through a filter, too.
func TestPictureArrives(t *testing.T) {
	for name, filtered := range map[string]bool{"straight": false, "view only": true} {
		t.Run(name, func(t *testing.T) {
			got, err := rfb.Look(serve(t, filtered))
			if err != nil {
				t.Fatal(err)
			}
			want := picture()
			if got.Bounds() != want.Bounds() {
				t.Fatalf("%v, want %v", got.Bounds(), want.Bounds())
			}
			for x := range 20 {
				if at := got.RGBAAt(x, x%10); at != want.RGBAAt(x, x%10) {
					t.Fatalf("at %d: %v, want %v", x, at, want.RGBAAt(x, x%10))
				}
			}
		})
	}
}

const hello = "RFB 003.008\n\x01\x01"

// messages of a client, and what a view-only one's server hears of them.
var messages = []struct {
	name, says, heard string
	fails             bool
}{
	{"pixel format", "\x00" + "aaaaaaaaaaaaaaaaaaa", "\x00aaaaaaaaaaaaaaaaaaa", false},
	{"encodings", "\x02\x00\x00\x02" + "abcdefgh", "\x02\x00\x00\x02abcdefgh", false},
	{"no encodings", "\x02\x00\x00\x00", "\x02\x00\x00\x00", false},
	{"update request", "\x03" + "123456789", "\x03123456789", false},
	{"key", "\x04" + "1234567", "", false},
	{"pointer", "\x05" + "12345", "", false},
	{"paste", "\x06xxx\x00\x00\x00\x05hello", "", false},
	{"extended clipboard", "\x06xxx\xff\xff\xff\xfbhello", "", false},
	{"QEMU's key", "\xff\x00" + "1234567890", "", false},
	{"QEMU's sound", "\xff\x01\x00\x00", "", false},
	{"QEMU's sound format", "\xff\x01\x00\x02" + "123456", "", false},
	{"a huge paste", "\x06xxx\x7f\xff\xff\xff", "", true},
	{"unknown", "\x07", "", true},
	{"QEMU's unknown", "\xff\x09", "", true},
}

func TestViewOnly(t *testing.T) {
	for _, m := range messages {
		var heard bytes.Buffer
		err := rfb.ViewOnly(&heard, bytes.NewReader([]byte(hello+m.says+m.says)))
		if errors.Is(err, rfb.ErrProtocol) != m.fails || err == nil {
			t.Errorf("%s: %v", m.name, err)
		}
		if want := hello + m.heard + m.heard; heard.String() != want && !m.fails {
			t.Errorf("%s: the server hears %q, want %q", m.name, heard.String(), want)
		}
	}
}

// Whatever a viewer says, no key, no pointer and no paste reaches the server.
func FuzzViewOnly(f *testing.F) {
	for _, m := range messages {
		f.Add([]byte(m.says))
	}
	f.Fuzz(func(t *testing.T, says []byte) {
		var heard bytes.Buffer
		_ = rfb.ViewOnly(&heard, bytes.NewReader(append([]byte(hello), says...)))
		if !bytes.HasPrefix(heard.Bytes(), []byte(hello)) {
			t.Fatalf("the hello became %q", heard.Bytes())
		}
		for rest := heard.Bytes()[len(hello):]; len(rest) > 0; {
			n := map[byte]int{0: 20, 3: 10}[rest[0]]
			if rest[0] == 2 && len(rest) >= 4 {
				n = 4 + 4*(int(rest[2])<<8|int(rest[3]))
			}
			if n == 0 && rest[0] != 2 {
				t.Fatalf("a message of kind %d reached the server", rest[0])
			}
			if n == 0 || n > len(rest) {
				return // the last one is cut short
			}
			rest = rest[n:]
		}
	})
}

// A server that lies about its screen costs nothing.
func FuzzLook(f *testing.F) {
	f.Add([]byte("RFB 003.008\n\x01\x01\x00\x00\x00\x00\x00\x02\x00\x02................\x00\x00\x00\x01x\x00\x00\x00\x01"))
	f.Fuzz(func(_ *testing.T, says []byte) {
		_, _ = rfb.Look(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(says), io.Discard})
	})
}
