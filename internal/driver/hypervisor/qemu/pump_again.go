package qemu

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// now is what a stream ends with: those of disks with each other, where they are begun anew.
func (s *streams) now(kind contract.Stream) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind == contract.StreamMemory {
		return s.ctx
	}
	return s.line
}

// renew has streams of disks begun anew that break, or not any more.
func (s *streams) renew(may bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renews, s.late = may, false
}

// cut ends the streams of disks there are, where they are begun anew, and lets none begin
// before again.
func (s *streams) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.renews {
		s.late = false
		s.snap()
	}
}

// broken tells whether streams of disks have ended that are to be begun anew.
func (s *streams) broken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.line.Err() != nil
}

func (s *streams) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.carried += n
}

// whole tells whether QEMU is connected for so many disks.
func (s *streams) whole(disks int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.carried == disks
}

// again lets streams begin once the target has ended those there were.
func (s *streams) again() error {
	s.mu.Lock()
	if s.line.Err() != nil {
		s.line, s.snap = context.WithCancel(s.ctx)
	}
	s.mu.Unlock()
	c, err := s.reach(contract.StreamAgain)
	if err != nil {
		return err
	}
	_ = c.NetConn().Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = s.renews && s.line.Err() == nil
	return nil
}

// joinDisk is join for a stream of a disk, which is over when either end is: QEMU reads from it
// only what it has asked for, and would not hear that the other end is gone.
func (s *streams) joinDisk(c net.Conn, far *sealed) {
	s.work.Go(func() {
		far.pass(far, c, far.send(c))
		_, _ = far.Close(), c.Close()
	})
	far.pass(c, far, far.receive(c))
	_, _ = c.Close(), far.Close()
}

// unprepared leads a connection of QEMU's to the target that nobody has foreseen: it makes one
// anew that broke.
func (s *streams) unprepared(kind contract.Stream, c net.Conn) {
	s.mu.Lock()
	may := s.late && kind == contract.StreamDisks
	s.mu.Unlock()
	if may {
		if far, err := s.reach(kind); err == nil {
			s.carry(kind, c, far)
			return
		}
	}
	_ = c.Close()
}

// entrants are the streams of disks that lead into a target.
type entrants struct {
	mu  sync.Mutex
	n   int // how often they were begun anew
	all map[io.Closer]chan struct{}
	// turn is held by who begins them anew
	turn sync.Mutex
}

// time tells how often the streams were begun anew.
func (e *entrants) time() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.n
}

// enter counts one that began at a time; false when others have taken its place.
func (e *entrants) enter(c io.Closer, at int) (left func(), ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.n != at {
		return nil, false
	}
	if e.all == nil {
		e.all = map[io.Closer]chan struct{}{}
	}
	gone := make(chan struct{})
	e.all[c] = gone
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.all, c)
		close(gone)
	}, true
}

// clear ends all, and returns once they have.
func (e *entrants) clear(ctx context.Context) error {
	e.mu.Lock()
	e.n++
	var ends []chan struct{}
	for c, gone := range e.all {
		_ = c.Close()
		ends = append(ends, gone)
	}
	e.mu.Unlock()
	for _, gone := range ends {
		select {
		case <-gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// beginAnew ends the streams of disks, and what came through them: a write that is late would
// undo what comes after it. QEMU lets a disk go once all of that is written.
func (g *guest) beginAnew(ctx context.Context) error {
	g.entrants.turn.Lock()
	defer g.entrants.turn.Unlock()
	if err := g.entrants.clear(ctx); err != nil {
		return err
	}
	for i, k := range g.rec.Machine.Disks {
		if !k.Moves() {
			continue
		}
		err := g.tell(ctx, "block-export-del", object{"id": moveJob(diskName(i)), "mode": "hard"}, nil)
		if err != nil {
			g.d.log.Debug("the door of a disk is not there to be shut", "vm", g.ref.VM, "disk", diskName(i), "error", err)
		}
	}
	if err := g.untilNoExports(ctx); err != nil {
		return err
	}
	return g.addExports(ctx)
}

// untilNoExports waits until QEMU has let all disks go.
func (g *guest) untilNoExports(ctx context.Context) error {
	for {
		var there []struct{}
		if err := g.tell(ctx, "query-block-exports", nil, &there); err != nil {
			return err
		}
		if len(there) == 0 {
			return nil
		}
		if err := g.d.opt.Clock.Sleep(ctx, lookEvery); err != nil {
			return errors.Join(errs.New(errs.Timeout, "the disks of VM %s are still being written to", g.ref.VM), context.Cause(ctx))
		}
	}
}
