package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/clock"
)

func main() {
	out, every, err := open(os.Args[1:])
	if err != nil {
		fmt.Println("pulse:", err)
		os.Exit(1)
	}
	var name [4]byte
	_, _ = rand.Read(name[:])
	for n := uint64(1); ; n++ {
		// one that is not heard is seen by the next one
		_, _ = fmt.Fprintf(out, "%s %d", hex.EncodeToString(name[:]), n)
		_ = clock.System{}.Sleep(context.Background(), every)
	}
}

// open takes where to count to, how many milliseconds lie between two numbers, and how many
// MiB to fill, and fills them.
func open(args []string) (out net.Conn, every time.Duration, err error) {
	if len(args) != 3 {
		return nil, 0, fmt.Errorf("there are %d arguments: give an address, milliseconds and MiB", len(args))
	}
	millis, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, 0, err
	}
	mib, err := strconv.Atoi(args[2])
	if err != nil {
		return nil, 0, err
	}
	if err := fill(mib << 20); err != nil {
		return nil, 0, err
	}
	out, err = (&net.Dialer{}).DialContext(context.Background(), "udp", args[0])
	return out, time.Duration(millis) * time.Millisecond, err
}

// fill takes so many bytes of memory for good, and writes to all of them.
func fill(size int) error {
	if size == 0 {
		return nil
	}
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	x := uint64(0x9e3779b97f4a7c15)
	for i := 0; i+8 <= len(b); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(b[i:], x)
	}
	return nil
}
