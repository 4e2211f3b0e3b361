package agent

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// guest is the agent's view of one VM: its record, and the fence made of it.
type guest struct {
	// turn is held by the command that acts on the VM; waiting for it respects
	// the command's budget.
	turn chan struct{}

	mu  sync.Mutex
	rec record
	// unwritten says that the record's fence is above that on the disk
	unwritten bool
	answers   map[string]answer // of the record's operation and attempt, by step
	cancel    context.CancelFunc
	running   fence
	// wanted is the newest fence that asked for a turn: once it has, an older one
	// gets none, wherever it stands in the queue
	wanted fence
	// ice is held by who freezes or thaws
	ice sync.Mutex
	// took counts what the last taking of the VM from another node has brought
	took atomic.Pointer[counter]
	// sent is how far its last sending to another node is, which steward watched; settling
	// is of its last move
	sent    atomic.Pointer[nodelink.MoveProgress]
	relayed atomic.Bool // a server carries that
	// pace is what is sent of it is kept to
	pace    pace
	steward atomic.Pointer[steward]
	// warming is its last warm move from here.
	warming  atomic.Pointer[warming]
	settling *settling
}

type answer struct {
	body any
	err  error
}

// fence is what orders commands about one VM.
type fence struct {
	opSeq   int64
	attempt int64
}

func (f fence) before(g fence) bool {
	return f.opSeq < g.opSeq || (f.opSeq == g.opSeq && f.attempt < g.attempt)
}

func newGuest(rec record) *guest {
	g := &guest{turn: make(chan struct{}, 1), rec: rec, answers: map[string]answer{}}
	g.turn <- struct{}{}
	return g
}

// snapshot copies the record.
func (g *guest) snapshot() record {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rec
}

// take waits for the VM's turn. A command of a later attempt or operation ends
// the one that holds it, and those that wait: whoever sent them has lost its
// claim. What the fence refuses neither waits nor disturbs anybody.
func (g *guest) take(ctx context.Context, h *nodelink.Header, cluster id.ID) (context.Context, func(), error) {
	mine := fence{h.OpSeq, h.Attempt}
	if err := g.queue(h, cluster, mine); err != nil {
		return nil, nil, err
	}
	select {
	case <-g.turn:
	case <-ctx.Done():
		return nil, nil, errs.New(errs.Timeout, "another command on the VM takes longer than this one may wait").Because(ctx.Err())
	}
	ctx, cancel := context.WithCancel(ctx)
	g.mu.Lock()
	if mine.before(g.wanted) {
		g.mu.Unlock()
		cancel()
		g.turn <- struct{}{}
		return nil, nil, takenOver()
	}
	g.cancel, g.running = cancel, mine
	g.mu.Unlock()
	return ctx, func() {
		g.mu.Lock()
		g.cancel = nil
		g.mu.Unlock()
		cancel()
		g.turn <- struct{}{}
	}, nil
}

// queue notes that a command wants its turn.
func (g *guest) queue(h *nodelink.Header, cluster id.ID, mine fence) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.refuse(h, cluster); err != nil {
		return err
	}
	if mine.before(g.wanted) {
		return takenOver()
	}
	g.wanted = mine
	if g.cancel != nil && g.running.before(mine) {
		g.cancel()
	}
	return nil
}

func takenOver() error {
	return errs.New(errs.StaleAttempt, "the command belongs to an operation, or an attempt of it, that another server has taken over")
}

// admit decides whether a command may act. It answers a repeated step from
// memory, refuses what is too old, and otherwise raises the fence, durably,
// before anything happens.
func (g *guest) admit(h *nodelink.Header, cluster id.ID, keep *records) (*answer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old, err := g.raise(h, cluster)
	if err != nil || old != nil || !g.unwritten {
		return old, err
	}
	if err := keep.save(g.rec); err != nil {
		return nil, err
	}
	g.unwritten = false
	return nil, nil
}

// admitUnwritten is admit that leaves the fence to the command's first change of
// the record. Until that is written it holds in this process alone, which refuses
// whatever is older all the same.
func (g *guest) admitUnwritten(h *nodelink.Header, cluster id.ID, _ *records) (*answer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.raise(h, cluster)
}

// raise answers from memory, refuses, or raises the fence. It is called with g.mu
// held.
func (g *guest) raise(h *nodelink.Header, cluster id.ID) (*answer, error) {
	if err := g.refuse(h, cluster); err != nil {
		return nil, err
	}
	now, seen := fence{h.OpSeq, h.Attempt}, fence{g.rec.OpSeq, g.rec.Attempt}
	if now == seen && h.OwnerEpoch == g.rec.Epoch {
		if a, ok := g.answers[h.Step]; ok {
			return &a, nil
		}
		return nil, nil
	}
	if now != seen {
		g.answers = map[string]answer{}
	}
	g.rec.Epoch, g.rec.Operation, g.rec.OpSeq, g.rec.Attempt = h.OwnerEpoch, h.Operation, h.OpSeq, h.Attempt
	if len(h.Pools) > 0 {
		g.rec.Pools = h.Pools
	}
	g.unwritten = true
	return nil, nil
}

// refuse tells why a command is too old, or not for this node. It is called
// with g.mu held.
func (g *guest) refuse(h *nodelink.Header, cluster id.ID) error {
	now, seen := fence{h.OpSeq, h.Attempt}, fence{g.rec.OpSeq, g.rec.Attempt}
	switch {
	case h.Cluster != cluster:
		return errs.New(errs.Conflict, "the command comes from another cluster, or from an older copy of this one")
	case h.OwnerEpoch < g.rec.Epoch:
		return errs.New(errs.StaleEpoch, "the command is of owner epoch %d; the node has seen %d", h.OwnerEpoch, g.rec.Epoch)
	case now.before(seen):
		return takenOver()
	case h.OpSeq == g.rec.OpSeq && g.rec.Operation != id.Nil && h.Operation != g.rec.Operation:
		return errs.New(errs.Conflict, "two operations claim the same number on this VM")
	}
	return nil
}

// remember keeps the answer of a step for repeats. Errors that a retry may cure
// are not kept: the same attempt may try again.
func (g *guest) remember(step string, body any, err error) {
	if err != nil && errs.CodeOf(err).Retryable() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answers[step] = answer{body, err}
}

// change writes a changed record before it counts.
func (g *guest) change(keep *records, f func(*record)) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := g.rec
	f(&next)
	if same(next, g.rec) && !g.unwritten {
		return nil
	}
	if err := keep.save(next); err != nil {
		return err
	}
	g.rec, g.unwritten = next, false
	return nil
}

func same(a, b record) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}
