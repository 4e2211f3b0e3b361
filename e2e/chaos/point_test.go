package chaos

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// point is where a migration comes by.
type point string

// The points, in their order.
const (
	atDepart     point = "depart"     // the source's driver is asked for a departure
	atReceive    point = "receive"    // the target's is to receive
	atReceived   point = "received"   // its machine waits
	atDisks      point = "disks"      // the disks are about to be copied
	atMemory     point = "memory"     // memory is about to be sent
	atSwitchover point = "switchover" // the guest is halted, the rest goes
	atSent       point = "sent"       // all is sent; the source's agent does not know it
	atArrived    point = "arrived"    // all is there; the target's agent does not know it
	atSwap       point = "swap"       // the swap has come to the database
	atCommitted  point = "committed"  // it is committed, and nobody knows
	atGranted    point = "granted"    // the target's guest is about to execute
	atRunning    point = "running"    // it executes; its agent does not know it
	atEnding     point = "ending"     // the source's process is about to be killed
	atEnded      point = "ended"      // it is; its agent does not know it
)

var points = []point{atDepart, atReceive, atReceived, atDisks, atMemory, atSwitchover, atSent, atArrived, atSwap, atCommitted, atGranted, atRunning, atEnding, atEnded}

// gate is where everything waits that has come to a point.
type gate struct {
	path string
	l    net.Listener

	mu   sync.Mutex
	trap *trap
}

// trap is set at a point: the first who comes by springs it.
type trap struct {
	at     point
	sprung chan *visit
}

// visit is somebody who waits at a point.
type visit struct {
	at point
	// node is where, or the server
	who string
	// goOn lets them go; it is closed once.
	goOn chan struct{}
	once sync.Once
}

func (v *visit) let() { v.once.Do(func() { close(v.goOn) }) }

func openGate(t testing.TB, path string) *gate {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{path: path, l: l}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go g.serve(c)
		}
	}()
	return g
}

// serve hears of points over one connection.
func (g *gate) serve(c net.Conn) {
	defer c.Close()
	for s := bufio.NewScanner(c); s.Scan(); {
		who, at, _ := strings.Cut(s.Text(), " ")
		g.comeBy(who, point(at))
		if _, err := io.WriteString(c, "on\n"); err != nil {
			return
		}
	}
}

// comeBy waits until who came by a point may go on.
func (g *gate) comeBy(who string, at point) {
	g.mu.Lock()
	t := g.trap
	if t != nil && t.at == at {
		g.trap = nil
	} else {
		t = nil
	}
	g.mu.Unlock()
	if t == nil {
		return
	}
	v := &visit{at: at, who: who, goOn: make(chan struct{})}
	t.sprung <- v
	<-v.goOn
}

// set sets a trap, in place of any other.
func (g *gate) set(at point) *trap {
	t := &trap{at: at, sprung: make(chan *visit, 1)}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trap = t
	return t
}

// clear takes the trap away, and lets go who is in it.
func (g *gate) clear(t *trap) {
	g.mu.Lock()
	g.trap = nil
	g.mu.Unlock()
	select {
	case v := <-t.sprung:
		v.let()
	default:
	}
}

// caller tells a gate of points, from another process.
type caller struct{ who, path string }

// at waits at a point. Without a bench there is nobody to wait for.
func (c caller) at(p point) {
	conn, err := net.Dial("unix", c.path)
	if err != nil {
		return
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%s %s\n", c.who, p); err != nil {
		return
	}
	_, _ = bufio.NewReader(conn).ReadString('\n')
}
