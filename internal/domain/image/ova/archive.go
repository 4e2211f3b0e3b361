package ova

import (
	"archive/tar"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

const (
	// maxEntries bounds what an appliance has: a description, a manifest, a
	// certificate, and disks.
	maxEntries = 64
	// maxName is ustar's own.
	maxName = 255
	// maxHeaders bounds what is read of the archive besides its content.
	maxHeaders = 4 * unit.MiB
	// maxText bounds the description and the manifest, each.
	maxText = unit.MiB
)

// Entry is a file in the archive.
type Entry struct {
	Name string
	// At is where its content begins, and Size how long that is, in bytes.
	At, Size int64
}

// Archive is an appliance whose entries are what they may be.
type Archive struct {
	r           io.ReaderAt
	entries     []Entry
	description Entry
	sums        map[string]sum
}

// Is tells whether a file may be an appliance: a tar archive, by its beginning.
func Is(head []byte) bool {
	const at, magic = 257, "ustar"
	return len(head) >= at+len(magic) && string(head[at:at+len(magic)]) == magic
}

// Open looks at all entries, and reads the manifest. It reads headers, a bounded
// part of the file, and no disk.
func Open(r io.ReaderAt, size int64) (*Archive, error) {
	a := &Archive{r: r}
	if err := a.list(size); err != nil {
		return nil, err
	}
	var err error
	if a.description, err = a.only(".ovf", "is a second description: an appliance has one"); err != nil {
		return nil, err
	}
	if a.description.Name == "" {
		return nil, errs.New(errs.InvalidImage, "the archive is no appliance: it has no description (.ovf)")
	}
	return a, a.manifest()
}

// only finds the entry whose name ends so; two refuses another.
func (a *Archive) only(ending, two string) (found Entry, err error) {
	for _, e := range a.entries {
		if !strings.EqualFold(path.Ext(e.Name), ending) {
			continue
		}
		if found.Name != "" {
			return found, unsafeEntry(e.Name, two)
		}
		found = e
	}
	return found, nil
}

// list walks the archive.
func (a *Archive) list(size int64) error {
	in := io.NewSectionReader(a.r, 0, size)
	limited := &metered{r: in, left: maxHeaders}
	t := tar.NewReader(limited)
	seen := map[string]bool{}
	last := "the first entry"
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return broken(last, err)
		}
		at, err := in.Seek(0, io.SeekCurrent)
		if err != nil {
			return broken(h.Name, err)
		}
		if err := a.admit(h, at, size); err != nil {
			return err
		}
		if seen[strings.ToLower(h.Name)] {
			return unsafeEntry(h.Name, "is there twice")
		}
		if len(a.entries) == maxEntries {
			return unsafeEntry(h.Name, "is one too many: an appliance has up to 64")
		}
		seen[strings.ToLower(h.Name)], last = true, h.Name
		a.entries = append(a.entries, Entry{h.Name, at, h.Size})
	}
}

// admit decides whether an entry may be in an appliance.
func (a *Archive) admit(h *tar.Header, at, size int64) error {
	if err := admitName(h.Name); err != nil {
		return err
	}
	kinds := map[byte]string{
		tar.TypeLink: "is a link", tar.TypeSymlink: "is a link", tar.TypeChar: "is a device", tar.TypeBlock: "is a device",
		tar.TypeDir: "is a folder", tar.TypeFifo: "is a pipe", tar.TypeGNUSparse: "is sparse",
	}
	if why := kinds[h.Typeflag]; why != "" {
		return unsafeEntry(h.Name, why)
	}
	if h.Typeflag != tar.TypeReg || h.Linkname != "" {
		return unsafeEntry(h.Name, "is no plain file")
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse") {
			return unsafeEntry(h.Name, "is sparse")
		}
	}
	if h.Size < 0 || h.Size > size-at {
		return unsafeEntry(h.Name, "is longer than the archive: it is cut short")
	}
	return nil
}

func admitName(name string) error {
	switch {
	case path.IsAbs(name), strings.ContainsAny(name, `/\`), name == "", strings.HasPrefix(name, "."):
		return unsafeEntry(name, "has a path: all files of an appliance lie side by side")
	case len(name) > maxName, !utf8.ValidString(name), strings.ContainsFunc(name, odd):
		return unsafeEntry(name, "has a name with characters that no file of an appliance has, or too many")
	default:
		return nil
	}
}

// odd are control characters, and those that change how others are shown.
func odd(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }

// Entry finds a file by its name.
func (a *Archive) Entry(name string) (Entry, bool) {
	i := slices.IndexFunc(a.entries, func(e Entry) bool { return e.Name == name })
	if i < 0 {
		return Entry{}, false
	}
	return a.entries[i], true
}

// Content reads an entry.
func (a *Archive) Content(e Entry) *io.SectionReader { return io.NewSectionReader(a.r, e.At, e.Size) }

// text reads a small entry.
func (a *Archive) text(e Entry) ([]byte, error) {
	if e.Size > maxText {
		return nil, unsafeEntry(e.Name, "is larger than 1 MiB")
	}
	b, err := io.ReadAll(a.Content(e))
	if err != nil {
		return nil, broken(e.Name, err)
	}
	return b, nil
}

func unsafeEntry(name, why string) error {
	return errs.New(errs.ArchiveUnsafe, "the archive is not taken: its entry '%s' %s", errs.Clip(name), why).
		At(errs.Field{Pointer: errs.Clip(name), Message: why})
}

// broken tells what the archive's fault is from what the host's is.
func broken(name string, err error) error {
	if errors.Is(err, errTooMuch) {
		return unsafeEntry(name, "has headers without an end")
	}
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return unsafeEntry(name, "is cut short, or followed by no entry")
	}
	return unsafeEntry(name, "cannot be read, or what follows it")
}

var errTooMuch = errors.New("too much of the archive is not content")

// metered counts what is read, but not what is passed over.
type metered struct {
	r    io.ReadSeeker
	left int64
}

// Read implements io.Reader.
func (m *metered) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, errTooMuch
	}
	n, err := m.r.Read(p[:min(int64(len(p)), m.left)])
	m.left -= int64(n)
	return n, err
}

// Seek implements io.Seeker.
func (m *metered) Seek(to int64, from int) (int64, error) { return m.r.Seek(to, from) }
