package agent

import (
	"math/rand/v2"
	"sync"
	"time"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// rota is whose turn it is next of guests that are looked at again and again, and what was
// seen last.
type rota[T any] struct {
	// soon is about when a guest is first looked at, after it was first there.
	soon time.Duration

	mu  sync.Mutex
	all map[id.ID]*turnOf[T]
}

// turnOf is that of one incarnation.
type turnOf[T any] struct {
	epoch gen.OwnerEpoch
	// next is when it is looked at, and wait how long after the last time that is, about.
	next, wait time.Duration
	seen       T
}

func newRota[T any](soon time.Duration) rota[T] {
	return rota[T]{soon: soon, all: map[id.ID]*turnOf[T]{}}
}

// due gives those of the guests there that are to be looked at, and forgets the others that
// are not there any more.
func (r *rota[T]) due(there []hypervisor.Ref, now time.Duration) (out []hypervisor.Ref) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := make(map[id.ID]*turnOf[T], len(there))
	for _, g := range there {
		at := r.all[g.VM]
		if at == nil || at.epoch != g.Epoch {
			at = &turnOf[T]{epoch: g.Epoch, wait: r.soon / 2, next: now + spread(r.soon/2)}
		}
		kept[g.VM] = at
		if at.next <= now {
			out = append(out, g)
		}
	}
	r.all = kept
	return out
}

// looked says that a guest was looked at: note notes what was seen and gives how long to wait
// for the next time, about, when it was so long since the last.
func (r *rota[T]) looked(g hypervisor.Ref, now time.Duration, note func(seen *T, last time.Duration) time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.all[g.VM]
	if at == nil || at.epoch != g.Epoch {
		return
	}
	at.wait = note(&at.seen, at.wait)
	at.next = now + spread(at.wait)
}

// last is what was seen of an incarnation; false for one that is not there.
func (r *rota[T]) last(g hypervisor.Ref) (seen T, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.all[g.VM]
	if at == nil || at.epoch != g.Epoch {
		return seen, false
	}
	return at.seen, true
}

// spread makes guests that started together be looked at one after the other.
func spread(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2) //nolint:gosec // it only keeps guests from being looked at all at once: who guesses it gains nothing
}
