package seed

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/image/inspect"
	"github.com/novacron/novacron/internal/vocab/errs"
)

var files = []File{
	{"user-data", []byte("#cloud-config\n" + strings.Repeat("x", 5000))}, {"meta-data", []byte("instance-id: a\n")}, {"network-config", nil},
}

// entry is a record of a folder, read by its own rules.
type entry struct {
	name, alternate string
	content         []byte
	system          []byte
}

// folder reads the records of the folder in a sector.
func folder(t *testing.T, img []byte, at uint32) (out []entry) {
	t.Helper()
	for b := img[at*sector : (at+1)*sector]; b[0] > 0; b = b[b[0]:] {
		if b[0]%2 != 0 || int(b[0]) > len(b) {
			t.Fatalf("a record of %d bytes", b[0])
		}
		loc, size := binary.LittleEndian.Uint32(b[2:]), binary.LittleEndian.Uint32(b[10:])
		if loc != binary.BigEndian.Uint32(b[6:]) || size != binary.BigEndian.Uint32(b[14:]) {
			t.Fatalf("the orders of bytes differ: % x", b[:b[0]])
		}
		n := int(b[32])
		e := entry{name: string(b[33 : 33+n]), system: b[33+n+(n+1)%2 : b[0]]}
		if b[25]&2 == 0 {
			e.content = img[loc*sector : loc*sector+size]
		}
		for s := e.system; len(s) >= 4; s = s[s[2]:] {
			if string(s[:2]) == "NM" {
				e.alternate = string(s[5:s[2]])
			}
		}
		out = append(out, e)
	}
	return out
}

func TestImage(t *testing.T) {
	img, err := Image(files)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Image([]File{files[2], files[0], files[1]})
	if err != nil || !bytes.Equal(img, again) {
		t.Errorf("the same files in another order gave another image, %v", err)
	}
	is, err := inspect.File(bytes.NewReader(img), int64(len(img)), image.RoleISO)
	if err != nil || is.VirtualBytes != int64(len(img)) {
		t.Errorf("our own inspector says %+v, %v", is, err)
	}
	if len(img)%sector != 0 || binary.LittleEndian.Uint32(img[16*sector+80:])*sector != uint32(len(img)) {
		t.Errorf("%d bytes, %d sectors", len(img), binary.LittleEndian.Uint32(img[16*sector+80:]))
	}
	if got := string(img[16*sector : 16*sector+7]); got != "\x01CD001\x01" {
		t.Errorf("the first descriptor begins with %q", got)
	}
	if got := strings.TrimRight(string(img[16*sector+40:16*sector+72]), " "); got != "cidata" {
		t.Errorf("the label is %q", got)
	}
	rock, joliet := folder(t, img, binary.LittleEndian.Uint32(img[16*sector+158:])), folder(t, img, binary.LittleEndian.Uint32(img[17*sector+158:]))
	if len(rock) != len(files)+2 || len(joliet) != len(files)+2 || !bytes.HasPrefix(rock[0].system, []byte("SP\x07\x01\xbe\xef")) {
		t.Fatalf("%d and %d records, the first % x", len(rock), len(joliet), rock[0].system)
	}
	want := map[string][]byte{}
	for _, f := range files {
		want[f.Name] = f.Content
	}
	for i := range files {
		r, j := rock[i+2], joliet[i+2]
		if !bytes.Equal(r.content, want[r.alternate]) || want[r.alternate] == nil && r.alternate != "network-config" {
			t.Errorf("%q holds %d bytes", r.alternate, len(r.content))
		}
		if name := string(ucs2(r.alternate)); j.name != name || !bytes.Equal(j.content, r.content) {
			t.Errorf("%q holds %d bytes", j.name, len(j.content))
		}
		if i > 0 && (r.name <= rock[i+1].name || j.name <= joliet[i+1].name) {
			t.Errorf("%q stands behind %q", r.name, rock[i+1].name)
		}
	}
}

func TestImageRefuses(t *testing.T) {
	many := make([]File, MaxFiles+1)
	for i := range many {
		many[i].Name = strings.Repeat("a", i+1)
	}
	for what, c := range map[string]struct {
		files []File
		code  errs.Code
	}{
		"nothing": {nil, errs.InvalidField}, "many": {many, errs.InvalidField}, "no name": {[]File{{}}, errs.InvalidField},
		"a folder": {[]File{{Name: "a/b"}}, errs.InvalidField}, "the folder above": {[]File{{Name: ".."}}, errs.InvalidField},
		"a long name": {[]File{{Name: strings.Repeat("a", 65)}}, errs.InvalidField}, "one twice": {[]File{{Name: "a"}, {Name: "a"}}, errs.InvalidField},
		"too much": {[]File{{Name: "a", Content: make([]byte, MaxBytes+1)}}, errs.TooLarge},
	} {
		if img, err := Image(c.files); !errs.Is(err, c.code) || img != nil {
			t.Errorf("%s: %d bytes, %v", what, len(img), err)
		}
	}
	// the longest that is taken fits into its sectors
	for i := range many {
		many[i].Name = strings.Repeat(string(rune('a'+i)), 64)
	}
	img, err := Image(many[1:])
	if err != nil || len(folder(t, img, atRoot)) != MaxFiles+2 || len(folder(t, img, atJolietDir)) != MaxFiles+2 {
		t.Errorf("%v", err)
	}
}
