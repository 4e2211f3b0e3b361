package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// records has a guest's record say how far a move of it is.
func (b *bench) records(m move) *guest {
	b.t.Helper()
	g := b.agent.guest(b.vm)
	if err := g.change(b.agent.records, func(r *record) { r.Move = &m }); err != nil {
		b.t.Fatal(err)
	}
	return g
}

// A disk that was full when all was sent has room again, and the control plane brings the
// verdict first: that all was sent is not written over it.
func TestSentIsNotWrittenOverAVerdict(t *testing.T) {
	b := newBench(t)
	m := move{Migration: id.New(), Epoch: 1, State: moveSending}
	sent, settled := m, m
	sent.State = moveSent
	settled.State, settled.Verdict = moveSettled, nodelink.Abandoned
	for _, c := range []struct{ was, want move }{{m, sent}, {settled, settled}} {
		g := b.records(c.was)
		if err := b.agent.noteSent(g, sent); err != nil {
			t.Fatal(err)
		}
		if got := *g.snapshot().Move; got != c.want {
			t.Errorf("it was %s, and is %+v", c.was.State, got)
		}
	}
	other := move{Migration: id.New(), Epoch: 1, State: moveSending}
	if g := b.records(other); b.agent.noteSent(g, sent) != nil || *g.snapshot().Move != other {
		t.Errorf("another move is %+v", g.snapshot().Move)
	}
}

// incoming has the bench's host await the memory of a guest.
func (b *bench) incoming(migration id.ID) hypervisor.Ref {
	b.t.Helper()
	r := hypervisor.Ref{VM: b.vm, Epoch: 2}
	_, err := b.agent.driver.(hypervisor.Migrator).Receive(b.t.Context(), hypervisor.Machine{Ref: r, CPUs: 1, MemoryBytes: 64 * unit.MiB, Boot: hypervisor.Boot{Kernel: "/sim/kernel"}},
		hypervisor.Departure{Migration: migration, Hypervisor: "sim", Version: "1", Request: []byte("request")})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// What a target is late to give up is of its own move: the process that waits for the next
// one, under the same epoch, is not ended.
func TestLateEndIsOfItsOwnMove(t *testing.T) {
	b := newBench(t)
	old := move{Migration: id.New(), Target: true, Epoch: 1, State: moveWaiting}
	next := move{Migration: id.New(), Target: true, Epoch: 1, State: moveWaiting}
	g := b.records(next)
	b.incoming(next.Migration)
	for _, c := range []struct {
		of   move
		is   bool
		want vm.Phase
	}{{old, false, vm.PhaseIncoming}, {next, true, vm.PhaseExited}} {
		is, err := b.agent.settled(t.Context(), g, c.of, nodelink.Abandoned)
		if err != nil || is != c.is {
			t.Errorf("%v %v", is, err)
		}
		s, err := b.agent.driver.Inspect(t.Context(), b.vm)
		if err != nil || s.Phase != c.want {
			t.Errorf("it is %s: %v, want %s", s.Phase, err, c.want)
		}
	}
}

// A guest that has moved here and cannot execute is ended after a while; not where its disks are
// in a pool that is away, which comes back: its memory is nowhere else.
func TestGuestWaitsForItsPool(t *testing.T) {
	for name, away := range map[string]bool{"PoolIsAway": true, "DoesNotGoOn": false} {
		t.Run(name, func(t *testing.T) {
			b, c := newBench(t), clock.NewFake()
			b.clock, b.shared = c, t.TempDir()
			b.restart()
			m := move{Migration: id.New(), Target: true, Epoch: 1, State: moveSettled, Verdict: nodelink.Swapped, Owed: true}
			g := b.records(m)
			if away {
				if err := g.change(b.agent.records, func(r *record) { r.Pools = map[id.ID]id.ID{b.volume: b.agent.pools()[0].ID} }); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(b.shared, b.shared+".away"); err != nil {
					t.Fatal(err)
				}
			}
			b.incoming(m.Migration) // its memory never comes: it cannot go on
			told := make(chan string)
			b.agent.log = slog.New(tells{slog.DiscardHandler, told})
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				b.agent.own(b.agent.life, g, m)
			}()
			for tries := 0; tries < 2*int(swapPatience/retryEvery); {
				select {
				case what := <-told:
					if tries++; strings.Contains(what, "is ended") {
						<-ended
						tries += int(swapPatience)
					}
				default:
					c.Advance(retryEvery / 2)
				}
			}
			s, err := b.agent.driver.Inspect(t.Context(), b.vm)
			if err != nil || s.Phase.OnNode() != away {
				t.Errorf("it is %s: %v", s.Phase, err)
			}
			b.agent.end()
			for !closed(ended) { // it may be about to tell more
				select {
				case <-told:
				case <-ended:
				}
			}
		})
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// tells passes on what is logged.
type tells struct {
	slog.Handler
	to chan<- string
}

// Enabled implements slog.Handler.
func (tells) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h tells) Handle(_ context.Context, r slog.Record) error {
	h.to <- r.Message
	return nil
}

// nobody is reached, and counts who tries.
type nobody struct {
	other
	tried chan struct{}
}

// Reach implements Neighbours.
func (n *nobody) Reach(context.Context, Way) (io.ReadWriteCloser, error) {
	n.tried <- struct{}{}
	return nil, errors.New("it is not reached")
}

// A source asks for a verdict until it has one, and not for that of a move whose VM was
// removed from it.
func TestSourceAsksNoLongerThanItHasTheVM(t *testing.T) {
	b := newBench(t)
	n := &nobody{tried: make(chan struct{})}
	b.neighbours = n
	b.restart()
	m := move{Migration: id.New(), Epoch: 1, State: moveSent}
	g := b.records(m)
	ends := make(chan struct{})
	go func() {
		defer close(ends)
		b.agent.hear(b.agent.life, g, m, g.settleAnew(m.Migration))
	}()
	<-n.tried
	<-n.tried
	done := make(chan struct{})
	go func() { // it may be about to ask once more
		defer close(done)
		for {
			select {
			case <-n.tried:
			case <-ends:
				return
			}
		}
	}()
	b.erase("erase")
	late, free := b.clock.After(time.Minute)
	defer free()
	select {
	case <-done:
	case <-late:
		t.Error("it asks on")
	}
}
