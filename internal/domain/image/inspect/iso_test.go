package inspect

import (
	"encoding/binary"
	"testing"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// goodISO is the least that is a CD: a primary descriptor, one that ends their row,
// and an empty root folder, in 20 sectors.
func goodISO() []byte {
	b := make([]byte, 20*isoSector)
	p := b[isoFirst*isoSector:]
	copy(p, "\x01CD001\x01")
	both := func(at int, n uint32) {
		binary.LittleEndian.PutUint32(p[at:], n)
		binary.BigEndian.PutUint32(p[at+4:], n)
	}
	both(80, 20)
	p[129] = 8 // 2048
	p[156], p[156+25] = 34, 2
	both(158, 19)
	both(166, isoSector)
	copy(b[17*isoSector:], "\xffCD001\x01")
	return b
}

// at writes into the primary descriptor.
func at(n int, what ...byte) func([]byte) []byte {
	return func(b []byte) []byte { copy(b[isoFirst*isoSector+n:], what); return b }
}

var craftedISOs = map[string]func([]byte) []byte{
	"empty":                         func([]byte) []byte { return nil },
	"no mark":                       at(1, []byte("CD002")...),
	"another kind first":            at(0, 0),
	"version 2":                     at(6, 2),
	"blocks of 512":                 at(128, 0, 2, 2, 0),
	"more sectors than there are":   at(80, 21, 0, 0, 0, 0, 0, 0, 21),
	"sectors beyond everything":     at(80, 255, 255, 255, 255, 255, 255, 255, 255),
	"no sectors":                    at(80, 0, 0, 0, 0, 0, 0, 0, 0),
	"sizes that differ":             at(80, 20, 0, 0, 0, 0, 0, 0, 19),
	"a root that is a file":         at(181, 0),
	"a root of nothing":             at(166, 0, 0, 0, 0, 0, 0, 0, 0),
	"a root outside":                at(158, 20, 0, 0, 0, 0, 0, 0, 20),
	"a root that ends outside":      at(166, 0, 16, 0, 0, 0, 0, 16, 0),
	"a root beyond everything":      at(158, 255, 255, 255, 255, 255, 255, 255, 255),
	"a root whose places differ":    at(158, 18),
	"half a sector":                 func(b []byte) []byte { return b[:len(b)-1024] },
	"cut short":                     func(b []byte) []byte { return b[:19*isoSector] },
	"cut in the descriptors":        func(b []byte) []byte { return b[:17*isoSector] },
	"too many descriptors":          func(b []byte) []byte { return endless(b, 80) },
	"descriptors to the end":        func(b []byte) []byte { return endless(b, 20) },
	"qcow2 as well":                 func(b []byte) []byte { copy(b, "QFI\xfb"); return b },
	"a VMDK descriptor as well":     func(b []byte) []byte { copy(b, "# Disk DescriptorFile"); return b },
	"a tar as well":                 func(b []byte) []byte { copy(b[257:], "ustar"); return b },
	"a disk without anything on it": func([]byte) []byte { return make([]byte, 20*isoSector) },
}

// endless has descriptors that do not end, up to a sector.
func endless(b []byte, to int) []byte {
	b = append(b, make([]byte, 100*isoSector)...)[:max(to, 20)*isoSector]
	for n := isoFirst + 1; n < to; n++ {
		copy(b[n*isoSector:], "\x02CD001\x01")
	}
	return b
}

func TestISO(t *testing.T) {
	for what, f := range map[string]func([]byte) []byte{
		"the least": func(b []byte) []byte { return b },
		"one that boots from USB, too": func(b []byte) []byte {
			copy(b, "\xeb\x63\x90")
			b[510], b[511] = 0x55, 0xaa
			return b
		},
		"one with more behind it": func(b []byte) []byte { return append(b, make([]byte, 10*isoSector)...) },
	} {
		b := f(goodISO())
		if out, err := look(t, b, image.RoleISO); err != nil || out != (Result{"raw", int64(len(b))}) {
			t.Errorf("%s: %+v %v", what, out, err)
		}
	}
	for what, f := range craftedISOs {
		if out, err := look(t, f(goodISO()), image.RoleISO); !errs.Is(err, errs.InvalidImage) {
			t.Errorf("%s: %+v %v", what, out, err)
		}
	}
	for what, b := range others() {
		if out, err := look(t, b, image.RoleISO); !errs.Is(err, errs.InvalidImage) {
			t.Errorf("%s: %+v %v", what, out, err)
		}
	}
}
