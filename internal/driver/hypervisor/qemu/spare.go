package qemu

import (
	"context"
	"errors"
	"sync"

	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/uids"
)

// spares keeps ready what the next launch needs and what takes long: a keeper that
// is started, a user id that is free. It holds up nothing: a launch that finds
// nothing ready does it itself.
type spares struct {
	program string
	users   *uids.Pool // nil when not root
	wake    chan struct{}

	mu    sync.Mutex
	ready *keeper.Spare
}

func newSpares(program string, users *uids.Pool) *spares {
	s := &spares{program: program, users: users, wake: make(chan struct{}, 1)}
	s.refill()
	return s
}

// run keeps one ready until ctx ends.
func (s *spares) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			s.take().close()
			return
		case <-s.wake:
		}
		s.mu.Lock()
		missing := s.ready == nil
		s.mu.Unlock()
		if !missing {
			continue
		}
		fresh, err := keeper.NewSpare(s.program)
		if err != nil {
			continue // the next launch says what is wrong
		}
		s.mu.Lock()
		s.ready = fresh
		s.mu.Unlock()
		if s.users != nil {
			s.users.Scout()
		}
	}
}

// refill asks for another, once what it is asked after is done: a start of two
// programs beside that of a hypervisor would only slow it down.
func (s *spares) refill() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// spare is one that was ready, or none.
type spare struct{ *keeper.Spare }

func (s *spares) take() spare {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.ready
	s.ready = nil
	return spare{got}
}

func (s spare) close() {
	if s.Spare != nil {
		s.Close()
	}
}

// startKeeper starts a guest's keeper, from the spare where there is one.
func (d *Driver) startKeeper(ctx context.Context, g *guest, cfg keeper.Config) (keeper.Proc, error) {
	title := g.ref.VM.String()
	if got := d.spares.take(); got.Spare != nil {
		p, err := got.Start(ctx, title, cfg)
		if !errors.Is(err, keeper.ErrGone) {
			return p, err
		}
	}
	return keeper.Start(ctx, d.opt.Program, title, cfg)
}
