package chaos

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// listener hears the witness, and judges what it says.
type listener struct {
	datagrams *net.UDPConn
	streams   net.Listener
	datagram  string
	stream    string

	mu sync.Mutex
	// name of the witness now, and those it had
	name   string
	former []string
	// last number, and when it was heard
	last uint64
	at   time.Duration
	// longest silence since it was asked for
	longest time.Duration
	lost    int
	// wrong is what must not be
	wrong   []string
	changed chan struct{}
}

func listen(t testing.TB, host string) *listener {
	t.Helper()
	d, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(host)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{datagrams: d, streams: s, datagram: d.LocalAddr().String(), stream: s.Addr().String(), changed: make(chan struct{}, 1)}
	t.Cleanup(func() { _, _ = d.Close(), s.Close() })
	go l.hearDatagrams()
	go l.takeStreams()
	return l
}

func (l *listener) hearDatagrams() {
	buf := make([]byte, 256)
	for {
		n, err := l.datagrams.Read(buf)
		if err != nil {
			return
		}
		l.hear(string(buf[:n]), clock.System{}.Boot())
	}
}

// takeStreams reads what the connections carry, which has to go on by itself: who counts
// how often they were lost is the witness.
func (l *listener) takeStreams() {
	for {
		c, err := l.streams.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			l.hearStream(c)
		}()
	}
}

// hearStream holds the numbers of one connection against each other: none is missing.
func (l *listener) hearStream(c io.Reader) {
	var last uint64
	for s := bufio.NewScanner(c); s.Scan(); {
		w, err := parse(s.Text())
		if err == nil && last > 0 && w.n != last+1 {
			err = fmt.Errorf("over one connection, %d came after %d", w.n, last)
		}
		if err != nil {
			l.mu.Lock()
			l.blamef("%v", err)
			l.mu.Unlock()
		}
		last = w.n
	}
}

// word is one of the witness.
type word struct {
	name  string
	n     uint64
	lost  int
	wrong int
}

func parse(line string) (w word, err error) {
	if _, err := fmt.Sscanf(line, "%s %d %d %d", &w.name, &w.n, &w.lost, &w.wrong); err != nil {
		return w, fmt.Errorf("the witness said %q: %w", line, err)
	}
	return w, nil
}

func (l *listener) blamef(format string, a ...any) {
	if len(l.wrong) < 10 {
		l.wrong = append(l.wrong, fmt.Sprintf(format, a...))
	}
}

// hear judges one datagram.
func (l *listener) hear(line string, now time.Duration) {
	w, err := parse(line)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.blamef("%v", err)
		return
	case slices.Contains(l.former, w.name):
		l.blamef("witness %s, which was followed by %s, still counts: %d", w.name, l.name, w.n)
		return
	case w.n <= l.last && w.name == l.name:
		l.blamef("witness %s said %d after %d: it runs twice, or from an older memory", w.name, w.n, l.last)
		return
	case w.n <= l.last:
		l.blamef("witness %s began with %d where %d was told: a write is lost", w.name, w.n, l.last)
	case w.name == l.name && w.lost > l.lost:
		l.blamef("the connection of witness %s broke", w.name)
	}
	if w.wrong > 0 {
		l.blamef("witness %s found %d places of its memory or its disk that it had not left so", w.name, w.wrong)
	}
	if w.name != l.name {
		if l.name != "" {
			l.former = append(l.former, l.name)
		}
		l.name, l.at = w.name, 0
	}
	if l.at > 0 {
		l.longest = max(l.longest, now-l.at)
	}
	l.last, l.lost, l.at = w.n, w.lost, now
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// heard is what was heard so far.
type heard struct {
	last    uint64
	starts  int
	longest time.Duration
	wrong   []string
}

func (l *listener) heard() heard {
	l.mu.Lock()
	defer l.mu.Unlock()
	return heard{last: l.last, starts: len(l.former), longest: l.longest, wrong: slices.Clone(l.wrong)}
}

// forget begins anew: what was wrong was told, and silences count from now on.
func (l *listener) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong, l.longest = nil, 0
}

// goesOn waits until so many more numbers have come.
func (l *listener) goesOn(more uint64, within time.Duration) error {
	want := l.heard().last + more
	late, free := clock.System{}.After(within)
	defer free()
	for {
		if l.heard().last >= want {
			return nil
		}
		select {
		case <-l.changed:
		case <-late:
			return fmt.Errorf("the witness is silent: it said %d, and is to say %d", l.heard().last, want)
		}
	}
}

// echo asks a guest for an answer, again and again, and counts.
type echo struct {
	conn net.PacketConn
	to   net.Addr
	stop chan struct{}
	done chan struct{}

	sent, heard int
}

// ping begins to do so, ten times a second.
func ping(t testing.TB, from, to string) *echo {
	t.Helper()
	c, err := net.ListenPacket("ip4:icmp", from)
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{conn: c, to: &net.IPAddr{IP: net.ParseIP(to)}, stop: make(chan struct{}), done: make(chan struct{})}
	go e.run()
	return e
}

func (e *echo) run() {
	defer close(e.done)
	buf := make([]byte, 1500)
	for seq := uint16(1); ; seq++ {
		select {
		case <-e.stop:
			return
		default:
		}
		e.sent++
		if _, err := e.conn.WriteTo(echoRequest(seq), e.to); err != nil {
			continue
		}
		_ = e.conn.SetReadDeadline(clock.Deadline(100 * time.Millisecond))
		for {
			n, _, err := e.conn.ReadFrom(buf)
			if err != nil {
				break
			}
			if n >= 8 && buf[0] == 0 && binary.BigEndian.Uint16(buf[6:]) == seq {
				e.heard++ // and wait for the time to be over
			}
		}
	}
}

// end stops, and gives how many were asked and how many answered.
func (e *echo) end() (sent, heard int) {
	close(e.stop)
	<-e.done
	_ = e.conn.Close()
	return e.sent, e.heard
}

// echoRequest is a message of RFC 792.
func echoRequest(seq uint16) []byte {
	b := make([]byte, 16)
	b[0] = 8
	binary.BigEndian.PutUint16(b[4:], 0x6e63)
	binary.BigEndian.PutUint16(b[6:], seq)
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 > 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	return b
}
