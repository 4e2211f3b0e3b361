package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/tap"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// A guest goes around three nodes, on a bridge, with its local disk, while it counts: each
// number is on its disk before it goes over one TCP connection. None is missing or comes
// twice, the connection holds, and the disk has what was told. NOVACRON_E2E_MOVES says how
// often it moves.
func TestGuestCountsWhileItMoves(t *testing.T) {
	if err := tap.Usable(); err != nil {
		t.Skip("a bridge takes root and nft: ", err)
	}
	moves := 3
	if n, err := strconv.Atoi(os.Getenv("NOVACRON_E2E_MOVES")); err == nil {
		moves = n
	}
	bridge, host, guest := bridgeOfItsOwn(t)
	count := listenForCount(t, host)
	i := up(t, "--accel", "tcg", "--nodes", "3", "--bridges", bridge)
	i.importTiny()
	i.must("vm", "create", "web", "--image", "tiny", "--memory", "128MiB", "--disk", "64MiB", "--nic", "bridge="+bridge, "--start", "--wait")
	i.logged("web", ready)
	i.console("web", "COUNTS-42",
		"ip addr add "+guest+"/24 dev eth0; ip link set eth0 up",
		fmt.Sprintf("(n=0; while n=$((n+1)); do echo $n > /dev/vda; sync; echo $n; usleep 20000; done | nc %s %s) &", host, count.port),
		"echo COUNTS-$((6*7))")
	count.reaches(t, 10)
	var downtimes []time.Duration
	for range moves {
		before := i.nodeOf("web")
		count.forgetGap()
		i.must("vm", "migrate", "web", "--wait")
		if i.nodeOf("web") == before {
			t.Fatalf("it is on %s still", before)
		}
		count.goesOn(t)
		downtimes = append(downtimes, count.gap())
	}
	told := count.last()
	i.console("web", "STOPPED-42", "kill %1; echo STOPPED-$((6*7))")
	out := i.console("web", "KEPT-42", "echo DISK=$(head -n 1 /dev/vda)=; echo KEPT-$((6*7))")
	kept := between(out[strings.LastIndex(out, "DISK="):], "DISK=", "=")
	if n, err := strconv.ParseInt(kept, 10, 64); err != nil || n < told {
		t.Errorf("it told %d, and its disk has %q", told, kept)
	}
	slices.Sort(downtimes)
	t.Logf("%d moves, %d numbers; the longest silence in each, by the witness: p50 %v, p99 %v, longest %v",
		moves, told, downtimes[len(downtimes)/2], downtimes[len(downtimes)*99/100], downtimes[len(downtimes)-1])
}

func between(s, from, to string) string {
	_, s, _ = strings.Cut(s, from)
	s, _, _ = strings.Cut(s, to)
	return s
}

// bridgeOfItsOwn makes a bridge, and gives its address and one for a guest.
func bridgeOfItsOwn(t *testing.T) (name, host, guest string) {
	t.Helper()
	u := id.New()
	name = "nve" + id.Short(u)
	net := fmt.Sprintf("10.%d.%d.", 128+u[14]%64, u[15])
	for _, args := range [][]string{
		{"link", "add", name, "type", "bridge"},
		// as one with a network card has: that of its taps would come and go with them
		{"link", "set", name, "address", "02:00:00:00:00:01"},
		{"addr", "add", net + "1/24", "dev", name},
		{"link", "set", name, "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v %s", args, err, out)
		}
		if args[1] == "add" && args[0] == "link" {
			t.Cleanup(func() { _ = exec.Command("ip", "link", "del", name).Run() })
		}
	}
	return name, net + "1", net + "2"
}

// counted is a connection over which a guest counts.
type counted struct {
	port string

	mu      sync.Mutex
	n       int64
	at      time.Duration
	longest time.Duration
	wrong   string
	changed chan struct{}
}

// listenForCount takes one connection.
func listenForCount(t *testing.T, host string) *counted {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := &counted{port: port, changed: make(chan struct{}, 1)}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_ = l.Close() // a second connection would hide that the first was lost
		defer conn.Close()
		for s := bufio.NewScanner(conn); s.Scan(); {
			c.hear(s.Text())
		}
		c.hear("the end of the connection")
	}()
	return c
}

func (c *counted) hear(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := clock.System{}.Boot()
	if n, err := strconv.ParseInt(line, 10, 64); err != nil || n != c.n+1 {
		if c.wrong == "" {
			c.wrong = fmt.Sprintf("%q came after %d", line, c.n)
		}
		return
	}
	if c.n++; c.at > 0 {
		c.longest = max(c.longest, now-c.at)
	}
	c.at = now
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *counted) last() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (c *counted) gap() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.longest
}

func (c *counted) forgetGap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.longest = 0
}

// reaches waits until the guest has counted so far, without a mistake.
func (c *counted) reaches(t *testing.T, n int64) {
	t.Helper()
	late, free := clock.System{}.After(time.Minute)
	defer free()
	for {
		c.mu.Lock()
		at, wrong := c.n, c.wrong
		c.mu.Unlock()
		switch {
		case wrong != "":
			t.Fatal(wrong)
		case at >= n:
			return
		}
		select {
		case <-c.changed:
		case <-late:
			t.Fatalf("the guest has counted to %d alone", at)
		}
	}
}

// goesOn waits until it counts on.
func (c *counted) goesOn(t *testing.T) {
	t.Helper()
	c.reaches(t, c.last()+5)
}
