package ova

import (
	"crypto/sha1" //nolint:gosec // what older programs write; it guards against damage alone
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"io"
	"path"
	"regexp"
	"strings"
)

// sum is what an entry must be.
type sum struct {
	make func() hash.Hash
	hex  string
}

var hashes = map[string]func() hash.Hash{"SHA1": sha1.New, "SHA256": sha256.New, "SHA512": sha512.New}

// line is one of a manifest: SHA256(disk.vmdk)= 0123...
var line = regexp.MustCompile(`^(SHA1|SHA256|SHA512) ?\(([^()]+)\) ?= ?([0-9a-fA-F]+)$`)

// manifest reads what the entries must be, and sees that it speaks of each.
func (a *Archive) manifest() error {
	at, err := a.only(".mf", "is a second manifest: an appliance has one")
	if err != nil {
		return err
	}
	if at.Name == "" {
		return unsafeEntry(a.description.Name, "has no manifest (.mf) beside it: nothing says what its files must be")
	}
	text, err := a.text(at)
	if err != nil {
		return err
	}
	if a.sums, err = a.readManifest(at.Name, string(text)); err != nil {
		return err
	}
	for _, e := range a.entries {
		if _, ok := a.sums[e.Name]; !ok && e.Name != at.Name && !strings.EqualFold(path.Ext(e.Name), ".cert") {
			return unsafeEntry(e.Name, "is not in the manifest")
		}
	}
	return nil
}

func (a *Archive) readManifest(name, text string) (map[string]sum, error) {
	out := map[string]sum{}
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l == "" {
			continue
		}
		m := line.FindStringSubmatch(l)
		if m == nil {
			return nil, unsafeEntry(name, "is no manifest")
		}
		s := sum{hashes[m[1]], strings.ToLower(m[3])}
		if _, twice := out[m[2]]; twice || len(s.hex) != 2*s.make().Size() {
			return nil, unsafeEntry(name, "is no manifest: it has a file twice, or half a sum")
		}
		if _, ok := a.Entry(m[2]); !ok {
			return nil, unsafeEntry(m[2], "is in the manifest, and not in the archive")
		}
		out[m[2]] = s
	}
	return out, nil
}

// Verify reads an entry to its end and holds it against the manifest. through, if
// not nil, is what it is read through: to count, or to stop.
func (a *Archive) Verify(e Entry, through func(io.Reader) io.Reader) error {
	s, ok := a.sums[e.Name]
	if !ok {
		return unsafeEntry(e.Name, "is not in the manifest")
	}
	var in io.Reader = a.Content(e)
	if through != nil {
		in = through(in)
	}
	h := s.make()
	if _, err := io.Copy(h, in); err != nil {
		return err
	}
	if hex.EncodeToString(h.Sum(nil)) != s.hex {
		return unsafeEntry(e.Name, "is not what the manifest says: it is damaged, or was changed")
	}
	return nil
}
