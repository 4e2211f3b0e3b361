package blob

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// begin opens a part at an offset.
func begin(t *testing.T, d *Dir, u id.ID, offset int64, state []byte) *Part {
	t.Helper()
	p, err := d.OpenPart(u, offset == 0)
	if err == nil {
		err = p.Resume(offset, state)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// send adds to a part and gives the state there.
func send(t *testing.T, p *Part, content string) []byte {
	t.Helper()
	if ended, err := p.Append(t.Context(), strings.NewReader(content), 100); err != nil || !ended {
		t.Fatalf("%v, ended %v", err, ended)
	}
	state, err := p.State()
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// A part goes on where it was recorded, by the hash's state or without, whatever
// a crash left behind that.
func TestPartResumes(t *testing.T) {
	for name, forget := range map[string]bool{"ByState": false, "ByReading": true} {
		t.Run(name, func(t *testing.T) {
			path, u := t.TempDir(), id.New()
			p := begin(t, open(t, path), u, 0, nil)
			state := send(t, p, "first ")
			send(t, p, "lost") // written, and not recorded
			p.Close()
			if forget {
				state = []byte("of another program")
			}
			d := open(t, path) // a new process: it sweeps no part
			p = begin(t, d, u, 6, state)
			send(t, p, "second")
			if p.Offset != 12 || p.SHA256() != sumOf("first second") {
				t.Fatalf("%d %s", p.Offset, p.SHA256())
			}
			if err := p.Keep(); err != nil {
				t.Fatal(err)
			}
			p.Discard()
			p.Discard()
			f, err := d.Open(sumOf("first second"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if b, err := io.ReadAll(f); err != nil || string(b) != "first second" {
				t.Errorf("%q %v", b, err)
			}
			if got := names(t, path); len(got) != 1 {
				t.Errorf("left %v", got)
			}
		})
	}
}

// A body that breaks off leaves what came of it; one that is too long is not read
// to its end.
func TestPartBodies(t *testing.T) {
	d := open(t, t.TempDir())
	p := begin(t, d, id.New(), 0, nil)
	defer p.Discard()
	broken := io.MultiReader(strings.NewReader("1234"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := p.Append(t.Context(), broken, 100); !errs.Is(err, errs.InvalidField) || p.Offset != 4 || p.SHA256() != sumOf("1234") {
		t.Errorf("%v at %d", err, p.Offset)
	}
	if ended, err := p.Append(t.Context(), zeros{}, 3); err != nil || ended || p.Offset != 7 {
		t.Errorf("%v at %d", err, p.Offset)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Append(over, zeros{}, 3); !errs.Is(err, errs.InvalidField) || p.Offset != 7 {
		t.Errorf("%v at %d", err, p.Offset)
	}
	// a disk that takes no more: the file is open for reading only
	full, err := os.Open(p.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	whole := p.file
	p.file = full
	if _, err := p.Append(t.Context(), zeros{}, 3); !errs.Is(err, errs.HostFailure) || p.Offset != 7 || p.SHA256() != sumOf("1234\x00\x00\x00") {
		t.Errorf("%v at %d", err, p.Offset)
	}
	_ = full.Close()
	p.file = whole
}

// One process holds a part; nobody else writes, resumes or removes it.
func TestPartIsHeld(t *testing.T) {
	path, u := t.TempDir(), id.New()
	d, other := open(t, path), open(t, path)
	p := begin(t, d, u, 0, nil)
	if _, err := other.OpenPart(u, false); !errs.Is(err, errs.Conflict) {
		t.Errorf("held twice: %v", err)
	}
	if removed, err := other.RemovePart(u); removed || err != nil {
		t.Errorf("removed under its writer: %v %v", removed, err)
	}
	if all, err := d.Parts(); err != nil || len(all) != 1 || all[0] != u {
		t.Errorf("%v %v", all, err)
	}
	if list, err := d.List(); err != nil || len(list) != 0 {
		t.Errorf("a part is visible: %v %v", list, err)
	}
	p.Close()
	if removed, err := other.RemovePart(u); !removed || err != nil {
		t.Errorf("%v %v", removed, err)
	}
	if removed, err := other.RemovePart(u); removed || err != nil {
		t.Errorf("removed twice: %v %v", removed, err)
	}
}

// A part that is not there, or shorter than was recorded, is not made up.
func TestPartIsLost(t *testing.T) {
	path, u := t.TempDir(), id.New()
	d := open(t, path)
	if _, err := d.OpenPart(u, false); !errs.Is(err, errs.NotFound) {
		t.Errorf("%v", err)
	}
	p := begin(t, d, u, 0, nil)
	defer p.Discard()
	send(t, p, "content")
	if err := os.Truncate(filepath.Join(path, partPrefix+u.String()), 3); err != nil {
		t.Fatal(err)
	}
	if err := p.Resume(7, nil); !errs.Is(err, errs.NotFound) {
		t.Errorf("%v", err)
	}
}

// What resuming costs: the state, or the reading of what is there.
func BenchmarkResume(b *testing.B) {
	d, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	p, err := d.OpenPart(id.New(), true)
	if err != nil {
		b.Fatal(err)
	}
	defer p.Discard()
	const size = 1 << 30
	if _, err := p.Append(b.Context(), zeros{}, size); err != nil {
		b.Fatal(err)
	}
	state, err := p.State()
	if err != nil {
		b.Fatal(err)
	}
	for name, s := range map[string][]byte{"state": state, "reading": nil} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				if err := p.Resume(size, s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What the checkpoints of an upload cost.
func BenchmarkAppend(b *testing.B) {
	for name, step := range map[string]int64{"8MiB": 8 << 20, "32MiB": 32 << 20, "256MiB": 256 << 20} {
		b.Run(name, func(b *testing.B) {
			d, err := Open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			const size = 256 << 20
			b.SetBytes(size)
			for b.Loop() {
				p, err := d.OpenPart(id.New(), true)
				if err != nil {
					b.Fatal(err)
				}
				for p.Offset < size {
					if _, err := p.Append(b.Context(), zeros{}, step); err != nil {
						b.Fatal(err)
					}
					if _, err := p.State(); err != nil {
						b.Fatal(err)
					}
				}
				p.Discard()
			}
		})
	}
}
