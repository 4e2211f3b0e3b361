package qemu_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// rounds is a life of many guests in which anything happens at any time.
type rounds struct {
	*harness
	t    *testing.T
	ctx  context.Context
	dice *rand.Rand
	vms  []contract.Machine
	done map[string]int
}

// mostAtOnce bounds the guests that live at the same time.
const mostAtOnce = 5

// Guests are launched, shut down, killed and released, their hypervisors, keepers
// and networks die, and agents come and go, in any order: afterwards nothing is left.
func TestRandomRounds(t *testing.T) {
	const seed = 0x5eed
	count := 200
	if testing.Short() {
		count = 60 // the race detector makes each of them slow
	}
	r := &rounds{harness: newHarness(t, nil), t: t, ctx: hypertest.Context(t), dice: rand.New(rand.NewPCG(seed, 1)), done: map[string]int{}}
	for n := range count {
		what, err := r.round()
		r.done[what]++
		if err != nil {
			t.Fatalf("round %d of seed %#x, %s: %v", n, seed, what, err)
		}
	}
	t.Logf("what happened: %v", r.done)
	for _, m := range r.vms {
		if _, err := r.driver.Kill(r.ctx, m.Ref); err != nil {
			t.Error(err)
		}
		if err := r.driver.Release(r.ctx, m.VM); err != nil {
			t.Error(err)
		}
	}
	if left := r.Leftovers(); len(left) > 0 {
		t.Errorf("after %d rounds the host still holds: %v", count, left)
	}
}

func (r *rounds) round() (what string, err error) {
	if len(r.vms) == 0 || len(r.vms) < mostAtOnce && r.dice.IntN(3) == 0 {
		return "launch", r.begin()
	}
	i := r.dice.IntN(len(r.vms))
	m := r.vms[i]
	switch r.dice.IntN(7) {
	case 0:
		return "launch again", r.again(i)
	case 1:
		_, err := r.driver.Kill(r.ctx, m.Ref)
		return "kill", err
	case 2:
		return "shutdown", allow(r.driver.Shutdown(r.ctx, m.Ref), errs.InvalidState, errs.StaleEpoch)
	case 3:
		return "end of the hypervisor", r.end(m, func(p process.Identity, _ process.Identity) process.Identity { return p })
	case 4:
		return "end of the keeper", r.end(m, func(_ process.Identity, p process.Identity) process.Identity { return p })
	case 5:
		r.Away(r.t, nil)
		_, err := r.driver.Adopt(r.ctx)
		return "another agent", err
	default:
		r.vms = append(r.vms[:i], r.vms[i+1:]...)
		if _, err := r.driver.Kill(r.ctx, m.Ref); err != nil {
			return "release", err
		}
		return "release", r.driver.Release(r.ctx, m.VM)
	}
}

// begin launches a machine, half of them with a network and a screen.
func (r *rounds) begin() error {
	m := r.Machine(r.t, hypertest.Polite)
	if r.dice.IntN(2) == 0 {
		m.NICs = []contract.NIC{{ID: id.New(), MAC: "52:54:00:12:34:56", Forwards: []contract.Forward{{Protocol: "tcp", HostPort: r.FreePort(r.t), GuestPort: 80}}}}
		m.Screen = true
	}
	r.vms = append(r.vms, m)
	_, err := r.driver.Launch(r.ctx, m)
	return err
}

// again launches a later incarnation, which is refused while one lives.
func (r *rounds) again(i int) error {
	r.vms[i].Epoch++
	_, err := r.driver.Launch(r.ctx, r.vms[i])
	if errs.Is(err, errs.InvalidState) {
		r.vms[i].Epoch -= gen.OwnerEpoch(1)
		return nil
	}
	return err
}

// end kills one of a machine's processes, if it lives.
func (r *rounds) end(m contract.Machine, which func(hypervisor, keeper process.Identity) process.Identity) error {
	s, err := r.driver.Inspect(r.ctx, m.VM)
	if err != nil || !s.Phase.OnNode() {
		return err
	}
	p := r.proc(r.t, m.VM)
	h, err := process.Open(which(p.Hypervisor, p.Keeper))
	if err != nil {
		return allowGone(err)
	}
	defer func() { _ = h.Close() }()
	if err := h.Signal(unix.SIGKILL); err != nil {
		return allowGone(err)
	}
	<-h.Ended()
	return nil
}

func allowGone(err error) error {
	if errors.Is(err, process.ErrGone) {
		return nil
	}
	return err
}

func allow(err error, codes ...errs.Code) error {
	for _, c := range codes {
		if errs.Is(err, c) {
			return nil
		}
	}
	return err
}
