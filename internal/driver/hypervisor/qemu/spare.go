package qemu

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/novacron/novacron/internal/driver/hypervisor/cgroup"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/uids"
	"github.com/novacron/novacron/internal/driver/jail"
)

// spares keeps ready what the next launch needs and what takes long: a cgroup with
// a keeper and its second stage in it, a user id that is free. It holds up nothing:
// a launch that finds nothing ready makes it itself.
type spares struct {
	program string
	cgroups *cgroup.Tree
	users   *uids.Pool // nil when not root
	walls   *jail.Spec // nil where there can be none
	wake    chan struct{}
	// prefix begins the names of the groups that this driver makes, and of no other's
	prefix string

	mu    sync.Mutex
	made  int
	ready *spare
}

// spare is a cgroup with a keeper that waits in it. It belongs to no VM yet.
type spare struct {
	*keeper.Spare
	group   string
	folders cgroup.Group
}

func newSpares(program string, cgroups *cgroup.Tree, users *uids.Pool, walls *jail.Spec) *spares {
	s := &spares{
		program: program, cgroups: cgroups, users: users, walls: walls, wake: make(chan struct{}, 1),
		prefix: "group-" + strings.ToLower(rand.Text()[:10]) + "-",
	}
	s.refill()
	return s
}

// run keeps one ready until ctx ends, and then removes it.
func (s *spares) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			if left := s.pop(); left != nil {
				_ = s.discard(context.WithoutCancel(ctx), *left) // the next driver's sweep, otherwise
			}
			return
		case <-s.wake:
		}
		s.mu.Lock()
		missing := s.ready == nil
		s.mu.Unlock()
		if !missing {
			continue
		}
		fresh, err := s.make(ctx)
		if err != nil {
			continue // the next launch says what is wrong
		}
		s.mu.Lock()
		s.ready = &fresh
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

// take gives the one that is ready, or a new one.
func (s *spares) take(ctx context.Context) (spare, error) {
	if got := s.pop(); got != nil {
		return *got, nil
	}
	return s.make(ctx)
}

func (s *spares) pop() *spare {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.ready
	s.ready = nil
	return got
}

func (s *spares) make(ctx context.Context) (spare, error) {
	s.mu.Lock()
	s.made++
	out := spare{group: fmt.Sprintf("%s%d", s.prefix, s.made)}
	s.mu.Unlock()
	var err error
	if out.folders, err = s.cgroups.Make(out.group); err == nil {
		out.Spare, err = s.keeper(out)
	}
	if err != nil {
		return out, errors.Join(err, s.discard(ctx, out))
	}
	return out, nil
}

func (s *spares) keeper(in spare) (*keeper.Spare, error) {
	return keeper.NewSpare(s.program, keeper.Place{Groups: keeper.Groups(in.folders), Jail: s.walls})
}

// discard ends and removes what no guest has used.
func (s *spares) discard(ctx context.Context, x spare) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if x.Spare != nil {
		x.Close()
		select {
		case <-x.Gone():
		case <-ctx.Done():
		}
	}
	return s.cgroups.Remove(ctx, x.group)
}

// isMine tells whether a group was made by this driver.
func (s *spares) isMine(group string) bool { return strings.HasPrefix(group, s.prefix) }

// startKeeper makes the spare the guest's keeper. One that has ended is replaced by
// another in the same group.
func (d *Driver) startKeeper(ctx context.Context, g *guest, ready spare, cfg keeper.Config) (keeper.Proc, error) {
	files, err := openImages(g.rec.Machine)
	defer func() { closeImages(files) }()
	if err == nil {
		var taps []*os.File
		taps, err = g.openTaps(ctx)
		files = append(files, taps...)
	}
	if err != nil { // the keeper that waits is not used
		return keeper.Proc{}, errors.Join(err, d.spares.discard(context.WithoutCancel(ctx), ready))
	}
	title := g.ref.VM.String()
	p, err := ready.Start(ctx, title, cfg, files...)
	if !errors.Is(err, keeper.ErrGone) {
		return p, err
	}
	if ready.Spare, err = d.spares.keeper(ready); err != nil {
		return p, err
	}
	return ready.Start(ctx, title, cfg, files...)
}
