// Package seed makes the CD that cloud-init in a guest reads at its first boot: an
// ISO 9660 image labelled "cidata" with a few files, whose names stand in it three
// times: short ones, as ECMA-119 has them; those of Rock Ridge, which Linux reads;
// and those of Joliet, which Windows reads.
//
// The same files give the same bytes: there is no time and no random number in an
// image. It is made in memory, so that no copy of what is in it is left anywhere.
//
// Layouts: ECMA-119 (ISO 9660), "Rock Ridge Interchange Protocol" 1.10 over SUSP
// 1.10, and "Joliet Specification". Only what a folder without folders needs is here.
package seed

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Label is the volume's name, by which cloud-init finds it.
const Label = "cidata"

// Bounds of an image.
const (
	MaxFiles = 8
	maxName  = 64
	// MaxBytes bounds the content of all files together.
	MaxBytes = 8 << 20
)

// File is a file of the image.
type File struct {
	// Name is of a-z, 0-9 and '-'.
	Name    string
	Content []byte
}

const sector = 2048

// The sectors of an image, in order. What is in a folder fits into one.
const (
	atPrimary   = 16 // the sectors before belong to nobody
	atJoliet    = 17
	atEnd       = 18
	atPaths     = 19 // four tables: little and big endian, of each tree
	atRoot      = 23
	atReference = 24 // of Rock Ridge, which does not fit into the root's own entry
	atJolietDir = 25
	atFiles     = 26
)

// Image gives the bytes of an image with the files.
func Image(files []File) ([]byte, error) {
	if err := check(files); err != nil {
		return nil, err
	}
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	at := make([]uint32, len(files))
	next := uint32(atFiles)
	for i, f := range files {
		at[i] = next
		next += sectors(len(f.Content))
	}
	img := make([]byte, int(next)*sector)
	part := func(n int) []byte { return img[n*sector : (n+1)*sector : (n+1)*sector] }
	primary(part(atPrimary), next)
	joliet(part(atJoliet), next)
	copy(part(atEnd), "\xffCD001\x01")
	for i, root := range []uint32{atRoot, atRoot, atJolietDir, atJolietDir} {
		pathTable(part(atPaths+i), root, i%2 == 1)
	}
	rockRidgeFolder(part(atRoot), files, at)
	copy(part(atReference), extensionReference())
	jolietFolder(part(atJolietDir), files, at)
	for i, f := range files {
		copy(img[int(at[i])*sector:], f.Content)
	}
	return img, nil
}

func check(files []File) error {
	if len(files) == 0 || len(files) > MaxFiles {
		return errs.New(errs.InvalidField, "a seed has 1 to %d files, not %d", MaxFiles, len(files))
	}
	seen, sum := map[string]bool{}, 0
	for _, f := range files {
		if f.Name == "" || len(f.Name) > maxName || strings.Trim(f.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || seen[f.Name] {
			return errs.New(errs.InvalidField, "%q is not the name of a file of a seed, or stands twice", errs.Clip(f.Name))
		}
		seen[f.Name] = true
		sum += len(f.Content)
	}
	if sum > MaxBytes {
		return errs.New(errs.TooLarge, "a seed holds at most %d bytes, not %d", MaxBytes, sum)
	}
	return nil
}

// sectors is how many a file takes: an empty one has a place, too.
func sectors(n int) uint32 { return uint32(max(1, (n+sector-1)/sector)) }

// both writes a number in both orders of bytes, as most numbers stand in an image.
func both16(b []byte, n uint16) {
	binary.LittleEndian.PutUint16(b, n)
	binary.BigEndian.PutUint16(b[2:], n)
}

func both32(b []byte, n uint32) {
	binary.LittleEndian.PutUint32(b, n)
	binary.BigEndian.PutUint32(b[4:], n)
}

// noDate is a date of volume descriptors that is not given (ECMA-119, 8.4.26.1).
const noDate = "0000000000000000\x00"

// descriptor writes what the two descriptors of volumes have in common. Fields of
// text are filled by the caller.
func descriptor(b []byte, kind byte, size, tables, root uint32) {
	b[0] = kind
	copy(b[1:], "CD001\x01")
	both32(b[80:], size)
	both16(b[120:], 1) // one volume of a set of one
	both16(b[124:], 1)
	both16(b[128:], sector)
	both32(b[132:], pathTableSize)
	binary.LittleEndian.PutUint32(b[140:], tables)
	binary.BigEndian.PutUint32(b[148:], tables+1)
	copy(b[156:190], record("\x00", root, sector, true, nil))
	for i := range 4 {
		copy(b[813+i*len(noDate):], noDate)
	}
	b[881] = 1 // of the structure of what follows
}

// texts are the fields of text in a descriptor: where, how long.
var texts = [][2]int{{8, 32}, {40, 32}, {190, 128}, {318, 128}, {446, 128}, {574, 128}, {702, 37}, {739, 37}, {776, 37}}

func primary(b []byte, size uint32) {
	for _, t := range texts {
		copy(b[t[0]:], strings.Repeat(" ", t[1]))
	}
	copy(b[40:], Label)
	descriptor(b, 1, size, atPaths, atRoot)
}

func joliet(b []byte, size uint32) {
	for _, t := range texts {
		copy(b[t[0]:], ucs2(strings.Repeat(" ", t[1]/2)))
	}
	copy(b[40:], ucs2(Label))
	copy(b[88:], "%/E") // UCS-2, level 3
	descriptor(b, 2, size, atPaths+2, atJolietDir)
}

// ucs2 is for text of ASCII.
func ucs2(s string) []byte {
	out := make([]byte, 0, 2*len(s))
	for i := range len(s) {
		out = append(out, 0, s[i])
	}
	return out
}

const pathTableSize = 10

// pathTable names the only folder, the root, its own parent.
func pathTable(b []byte, root uint32, big bool) {
	b[0] = 1
	if big {
		binary.BigEndian.PutUint32(b[2:], root)
		binary.BigEndian.PutUint16(b[6:], 1)
		return
	}
	binary.LittleEndian.PutUint32(b[2:], root)
	binary.LittleEndian.PutUint16(b[6:], 1)
}

// record is an entry of a folder. Its date is 1 January 1970, since none has no
// form.
func record(name string, at, size uint32, folder bool, system []byte) []byte {
	length := 33 + len(name)
	length += length % 2
	b := make([]byte, length, length+len(system))
	both32(b[2:], at)
	both32(b[10:], size)
	copy(b[18:], []byte{70, 1, 1, 0, 0, 0, 0})
	if folder {
		b[25] = 2
	}
	both16(b[28:], 1)
	b[32] = byte(len(name))
	copy(b[33:], name)
	b = append(b, system...)
	if len(b)%2 != 0 {
		b = append(b, 0)
	}
	b[0] = byte(len(b))
	return b
}

// short is a file's name as ECMA-119 has it; the number keeps it unlike others.
func short(i int) string { return "FILE" + string(rune('A'+i)) + ".;1" }

// rockRidgeFolder writes the folder that Linux reads.
func rockRidgeFolder(b []byte, files []File, at []uint32) {
	self := slices.Concat(sharing, attributes(0o040555, 2), times, continuation())
	n := copy(b, record("\x00", atRoot, sector, true, self))
	n += copy(b[n:], record("\x01", atRoot, sector, true, slices.Concat(attributes(0o040555, 2), times)))
	for i, f := range files {
		system := slices.Concat(attributes(0o100400, 1), alternateName(f.Name), times)
		n += copy(b[n:], record(short(i), at[i], uint32(len(f.Content)), false, system))
	}
}

// jolietFolder writes the folder that Windows reads.
func jolietFolder(b []byte, files []File, at []uint32) {
	n := copy(b, record("\x00", atJolietDir, sector, true, nil))
	n += copy(b[n:], record("\x01", atJolietDir, sector, true, nil))
	for i, f := range files {
		n += copy(b[n:], record(string(ucs2(f.Name)), at[i], uint32(len(f.Content)), false, nil))
	}
}
