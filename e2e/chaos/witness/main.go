package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	mrand "math/rand/v2"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// every spaces the numbers.
const every = 50 * time.Millisecond

func main() {
	w, n, err := open(os.Args[1], os.Args[2], os.Args[3])
	if err != nil {
		fmt.Println("witness:", err)
		os.Exit(1)
	}
	for {
		if n++; w.disk.keep(n) != nil {
			w.wrong++
		}
		w.check(n)
		w.tell(n)
		_ = clock.System{}.Sleep(context.Background(), every)
	}
}

// open gives a witness of a new name, and the number that it goes on from.
func open(device, datagrams, stream string) (*witness, uint64, error) {
	d, err := openDisk(device)
	if err != nil {
		return nil, 0, err
	}
	n, err := d.highest()
	if err != nil {
		return nil, 0, err
	}
	if err := d.fill(); err != nil {
		return nil, 0, err
	}
	var name [4]byte
	_, _ = rand.Read(name[:])
	w := &witness{disk: d, memory: newMemory(), name: hex.EncodeToString(name[:]), stream: stream}
	w.out, err = (&net.Dialer{}).DialContext(context.Background(), "udp", datagrams)
	return w, n, err
}

// witness counts.
type witness struct {
	disk   *disk
	memory *memory
	name   string
	out    net.Conn
	// stream is the address of the connection conn, which was lost so often
	stream string
	conn   net.Conn
	lost   int
	wrong  int
}

// check changes memory and reads memory and disk back.
func (w *witness) check(n uint64) {
	w.wrong += w.memory.change(n) + w.disk.check()
}

// tell tells a number.
func (w *witness) tell(n uint64) {
	line := fmt.Sprintf("%s %d %d %d\n", w.name, n, w.lost, w.wrong)
	_, _ = w.out.Write([]byte(line))
	if w.conn != nil {
		if _, err := w.conn.Write([]byte(line)); err == nil {
			return
		}
		_ = w.conn.Close()
		w.lost++
	}
	w.conn, _ = (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", w.stream)
}

// The disk: a ring of numbers, and blocks that never change.
const (
	sector    = 512
	ring      = 256
	block     = 4096
	blocks    = 2048
	blocksAt  = 1 << 20
	filledAt  = ring * sector
	signature = 0x6e6f7661
)

// disk is the guest's, written past all caches.
type disk struct {
	f   int
	buf []byte
}

func openDisk(device string) (*disk, error) {
	f, err := unix.Open(device, unix.O_RDWR|unix.O_DIRECT|unix.O_DSYNC, 0)
	if err != nil {
		return nil, err
	}
	buf, err := unix.Mmap(-1, 0, block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	return &disk{f: f, buf: buf}, err
}

// keep writes a number down.
func (d *disk) keep(n uint64) error {
	b := d.buf[:sector]
	clear(b)
	binary.LittleEndian.PutUint32(b, signature)
	binary.LittleEndian.PutUint64(b[4:], n)
	binary.LittleEndian.PutUint32(b[12:], crc32.ChecksumIEEE(b[:12]))
	_, err := unix.Pwrite(d.f, b, int64(n%ring)*sector)
	return err
}

// highest gives the highest number that was written down.
func (d *disk) highest() (most uint64, err error) {
	b := d.buf[:sector]
	for k := range int64(ring) {
		if _, err := unix.Pread(d.f, b, k*sector); err != nil {
			return 0, err
		}
		if binary.LittleEndian.Uint32(b) == signature && binary.LittleEndian.Uint32(b[12:]) == crc32.ChecksumIEEE(b[:12]) {
			most = max(most, binary.LittleEndian.Uint64(b[4:]))
		}
	}
	return most, nil
}

// pattern is what a block holds.
func pattern(b []byte, k int) {
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], uint64(k+1)*0x9e3779b97f4a7c15+uint64(i))
	}
}

// fill writes the blocks that never change, once.
func (d *disk) fill() error {
	if _, err := unix.Pread(d.f, d.buf[:sector], filledAt); err != nil || binary.LittleEndian.Uint32(d.buf) == signature {
		return err
	}
	const many = 64
	big, err := unix.Mmap(-1, 0, many*block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(big) }()
	for k := 0; k < blocks; k += many {
		for i := range many {
			pattern(big[i*block:(i+1)*block], k+i)
		}
		if _, err := unix.Pwrite(d.f, big, blocksAt+int64(k)*block); err != nil {
			return err
		}
	}
	clear(d.buf[:sector])
	binary.LittleEndian.PutUint32(d.buf, signature)
	_, err = unix.Pwrite(d.f, d.buf[:sector], filledAt)
	return err
}

// check reads one of the blocks, and tells whether it is not what it was.
func (d *disk) check() int {
	k := mrand.IntN(blocks)
	if _, err := unix.Pread(d.f, d.buf, blocksAt+int64(k)*block); err != nil {
		return 1
	}
	want := make([]byte, block)
	pattern(want, k)
	if string(want) != string(d.buf) {
		return 1
	}
	return 0
}

// memory is changed page by page; each page has what was written into it last, by a note
// that lies elsewhere.
type memory struct {
	pages []byte
	notes []uint64
}

const (
	page    = 4096
	pages   = 2048
	changes = 32
)

func newMemory() *memory {
	return &memory{pages: make([]byte, pages*page), notes: make([]uint64, pages)}
}

// change writes some pages, and tells how many of some others are not as they were left.
func (m *memory) change(n uint64) (wrong int) {
	for i := range changes {
		k := int(n*changes+uint64(i)) % pages
		m.notes[k] = n
		binary.LittleEndian.PutUint64(m.pages[k*page:], n)
		binary.LittleEndian.PutUint64(m.pages[k*page+page-8:], n)
		k = mrand.IntN(pages)
		if binary.LittleEndian.Uint64(m.pages[k*page:]) != m.notes[k] || binary.LittleEndian.Uint64(m.pages[k*page+page-8:]) != m.notes[k] {
			wrong++
		}
	}
	return wrong
}
