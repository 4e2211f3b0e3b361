package sparse

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// A content arrives as it was sent, and is not taken for one when it is not all there.
func TestStreams(t *testing.T) {
	var b bytes.Buffer
	sent := map[int64]string{0: "begin", 4096: "middle", 9990: "end"}
	err := Send(&b, 10000, func(tell func(int64, []byte) error) error {
		return errors.Join(tell(0, []byte("begin")), tell(4096, []byte("middle")), tell(9990, []byte("end")))
	})
	if err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	got := map[int64]string{}
	read := func(b []byte, size int64) error {
		return Receive(bytes.NewReader(b), size, func(at int64, p []byte) error { got[at] = string(p); return nil })
	}
	if err := read(whole, 10000); err != nil || len(got) != 3 || got[4096] != sent[4096] || got[9990] != sent[9990] {
		t.Errorf("%v %v", got, err)
	}
	for n := range whole {
		if err := read(whole[:n], 10000); err == nil {
			t.Errorf("cut at %d it is whole", n)
		}
	}
	piece := func(at uint64, n uint32) []byte {
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, at), n)
	}
	for name, b := range map[string][]byte{
		"of another size": whole, "behind its end": piece(9999, 2), "far behind it": piece(1<<63, 1), "at the last": piece(1<<64-1, 1<<32-1),
		"too long": piece(0, MaxPiece+1), "back": append(append(piece(4, 1), 'a'), piece(4, 1)...), "of nothing": piece(5, 0),
	} {
		size := int64(10000)
		if name == "of another size" {
			size = 10001
		}
		if err := read(b, size); err == nil {
			t.Errorf("a piece %s was taken", name)
		}
	}
	stop := errors.New("stop")
	if err := Receive(bytes.NewReader(whole), 10000, func(int64, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// FuzzReceive: a node may send anything.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = Receive(bytes.NewReader(b), 4096, func(at int64, p []byte) error {
			if at < 0 || at+int64(len(p)) > 4096 {
				t.Errorf("%d bytes at %d", len(p), at)
			}
			return nil
		})
	})
}
