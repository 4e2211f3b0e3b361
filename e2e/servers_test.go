package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// further is a server besides that of the instance.
type further struct {
	address, socket string
	kill            func()
}

// database is the URL of the instance's database for a role.
func (i *instance) database(role string) string {
	return "postgres://" + role + "@/novacron?host=" + filepath.Join(i.runDirs()[0], "pg")
}

// furtherServer runs one more server on the instance's database.
func (i *instance) furtherServer(address string, env ...string) *further {
	i.t.Helper()
	run := i.runDirs()[0]
	f := &further{address: address, socket: filepath.Join(run, "s"+address[len(address)-5:]+".sock")}
	cmd := exec.Command(binary, "server", "--data-dir", filepath.Join(i.data, "server"), "--listen", address, "--socket-path", f.socket)
	cmd.Env = append(append(os.Environ(), "NOVACRON_DATABASE="+i.database("novacron_server")), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	var once sync.Once
	end := func(s syscall.Signal) func() {
		return func() {
			once.Do(func() {
				_ = cmd.Process.Signal(s)
				_ = cmd.Wait()
			})
		}
	}
	f.kill = end(syscall.SIGKILL)
	i.t.Cleanup(func() {
		end(syscall.SIGTERM)()
		if i.t.Failed() {
			i.t.Logf("--- server at %s\n%s", address, out.String())
		}
	})
	return f
}

// freeAddress is one that nobody listens on at the moment, and that no outgoing
// connection is given while its server is away.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(22000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// front is the one address that clients know: it hands each connection to the next
// server that takes it, as a balancer does.
func front(t *testing.T, servers []string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go relay(c, servers, n)
		}
	}()
	return l.Addr().String()
}

func relay(c net.Conn, servers []string, n int) {
	defer c.Close()
	for k := range servers {
		s, err := net.Dial("tcp", servers[(n+k)%len(servers)])
		if err != nil {
			continue
		}
		go func() {
			_, _ = io.Copy(s, c)
			_ = s.Close()
		}()
		_, _ = io.Copy(c, s)
		return
	}
}

// Three servers behind one address, killed one after the other, the one that leads
// first: clients move over, nothing that was acknowledged is lost or told twice, and
// events flow again within five seconds.
func TestThreeServersBehindOneAddress(t *testing.T) {
	i := up(t, "--sim", "2")
	i.importSliver()
	i.populate(1)
	servers := map[string]*further{}
	all := []string{i.state().Summary.Address}
	for range 2 {
		s := i.furtherServer(freeAddress(t))
		servers[s.address] = s
		all = append(all, s.address)
	}
	i.eventually("three servers", func() (bool, string) {
		n := i.sql("SELECT count(*) FROM servers")
		return n == "3", n
	})
	c, err := client.New(client.Config{
		Addresses: []string{front(t, all)}, Fingerprint: i.state().Summary.Fingerprint,
		Token: get[api.Token](i, "token", "create", "bench", "--role", "administrator").Token,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h := newHearer(i, c)
	defer h.stop()

	left := slices.Clone(all)
	for range 2 {
		leader := i.sql("SELECT s.address FROM leases l JOIN servers s ON s.id = l.holder WHERE l.name = 'sequencer'")
		h.change(20)
		killed := clock.System{}.Boot()
		if s := servers[leader]; s != nil {
			s.kill()
		} else {
			i.kill("server")
		}
		h.change(1) // by whichever server is there
		h.heard()
		took := clock.System{}.Boot() - killed
		t.Logf("the leader at %s was killed: events flow again after %.1f s", leader, took.Seconds())
		if took > 5*time.Second {
			t.Errorf("leader work moved in %v", took)
		}
		left = slices.DeleteFunc(left, func(a string) bool { return a == leader })
	}
	h.change(20)
	h.heard()
	h.exactly()
	v, err := c.VMs.Start(t.Context(), vmName(0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitChange(t.Context(), v, nil); err != nil {
		t.Errorf("a start, after two of three servers died: %v", err)
	}
}

// hearer changes a VM and hears of it, through one client.
type hearer struct {
	i    *instance
	t    testing.TB
	c    *client.Client
	ctx  context.Context
	stop func()

	mu    sync.Mutex
	asked int
	seen  []int64
	news  chan struct{}
	// base is the number of the last event before those that count
	base int64
}

func newHearer(i *instance, c *client.Client) *hearer {
	t := i.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	h := &hearer{i: i, t: t, c: c, ctx: ctx, news: make(chan struct{}, 1)}
	var done sync.WaitGroup
	h.stop = func() { cancel(); done.Wait() }
	now := make(chan struct{})
	var once sync.Once
	done.Go(func() {
		for e, err := range c.Events(ctx, client.FromNow) {
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("events: %v", err)
				}
				return
			}
			if e.Kind == "vm.updated" && e.Object.Name == vmName(0) {
				once.Do(func() { close(now) })
				h.mu.Lock()
				h.seen = append(h.seen, e.Seq)
				h.mu.Unlock()
				select {
				case h.news <- struct{}{}:
				default:
				}
			}
		}
	})
	// the stream is there once a change is heard of
	for heard := false; !heard && ctx.Err() == nil; {
		h.change(1)
		_ = clock.System{}.Sleep(ctx, 50*time.Millisecond)
		select {
		case <-now:
			heard = true
		default:
		}
	}
	i.eventually("everything so far is heard of", func() (bool, string) {
		told := h.told()
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(told) == 0 || h.seen[len(h.seen)-1] != told[len(told)-1] {
			return false, fmt.Sprint(told, h.seen)
		}
		h.base, h.asked, h.seen = told[len(told)-1], 0, nil
		return true, ""
	})
	return h
}

// told are the numbers of the VM's events since the base, as the database has them.
func (h *hearer) told() []int64 {
	h.t.Helper()
	var out []int64
	for f := range strings.FieldsSeq(h.i.sql(fmt.Sprintf("SELECT seq FROM events WHERE kind = 'vm.updated' AND object_name = '%s' AND seq > %d ORDER BY seq", vmName(0), h.base))) {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			h.t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// exactly checks that what was heard is what the database has, and that it has an
// event for each change.
func (h *hearer) exactly() {
	h.t.Helper()
	told := h.told()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Equal(told, h.seen) || len(told) < h.asked {
		h.t.Errorf("%d changes were acknowledged, %d events told, %d heard:\n%v\n%v", h.asked, len(told), len(h.seen), told, h.seen)
	}
}

// change changes the VM's labels so many times, each acknowledged.
func (h *hearer) change(times int) {
	h.t.Helper()
	for range times {
		for {
			v, err := h.c.VMs.Get(h.ctx, vmName(0))
			if err == nil {
				_, err = h.c.VMs.Patch(h.ctx, vmName(0), v.Revision, labelled())
			}
			// a change whose answer was lost may be found to have been made
			if err == nil || client.CodeOf(err) == "revision_mismatch" {
				break
			}
			if h.ctx.Err() != nil {
				h.t.Fatalf("change: %v", err)
			}
		}
		h.mu.Lock()
		h.asked++
		h.mu.Unlock()
	}
}

// heard waits until every acknowledged change was heard of, once and in order.
func (h *hearer) heard() {
	h.t.Helper()
	for {
		h.mu.Lock()
		seen, asked := slices.Clone(h.seen), h.asked
		h.mu.Unlock()
		if !slices.IsSorted(seen) || len(slices.Compact(seen)) != len(seen) {
			h.t.Fatalf("events came twice or out of order: %v", seen)
		}
		if len(seen) >= asked {
			return
		}
		select {
		case <-h.news:
		case <-h.ctx.Done():
			h.t.Fatalf("%d of %d changes were heard of", len(seen), asked)
		}
	}
}
