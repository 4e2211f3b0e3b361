package controltest

import (
	"bytes"
	"encoding/binary"
)

// VHD is a disk of 256 KiB in the format of another program, with some content.
func VHD(content string) []byte {
	const size = 256 << 10
	f := make([]byte, 512)
	be := binary.BigEndian
	copy(f, "conectix")
	be.PutUint32(f[8:], 2)
	be.PutUint32(f[12:], 0x10000)
	be.PutUint64(f[16:], 1<<64-1)
	be.PutUint64(f[40:], size)
	be.PutUint64(f[48:], size)
	be.PutUint32(f[60:], 2) // fixed
	var sum uint32
	for _, c := range f {
		sum += uint32(c)
	}
	be.PutUint32(f[64:], ^sum)
	return append(bytes.Repeat([]byte(content+"\n"), size/(len(content)+1)+1)[:size], f...)
}

// BrokenVDI is a disk whose header is good, and whose table names a block that is
// not there.
func BrokenVDI() []byte {
	b := make([]byte, 1<<20)
	le := binary.LittleEndian
	copy(b[0x40:], "\x7f\x10\xda\xbe")
	for at, v := range map[int]uint32{
		0x44: 0x00010001, 0x4c: 1, 0x154: 512, 0x158: 1024, 0x168: 512, 0x178: 1 << 20, 0x180: 2, 0x184: 2, 512: 0, 516: 1,
	} {
		le.PutUint32(b[at:], v)
	}
	le.PutUint64(b[0x170:], 2<<20)
	return b
}
