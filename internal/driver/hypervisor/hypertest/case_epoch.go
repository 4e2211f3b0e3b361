package hypertest

import (
	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
)

func epochCases() []testCase {
	return []testCase{
		{"Another epoch is refused and touches nothing", otherEpoch},
		{"An epoch that ended does not start again by itself", endedEpoch},
		{"The next epoch starts after the last one ended", nextEpoch},
	}
}

func at(m contract.Machine, e gen.OwnerEpoch) contract.Machine {
	m.Epoch = e
	return m
}

func otherEpoch(b *bench) {
	m := at(b.Machine(b.T, Polite), 5)
	before := b.start(m)
	seen := len(b.rec.Of(m.VM))
	for _, e := range []gen.OwnerEpoch{4, 6} {
		other := at(m, e)
		for name, err := range b.everyCall(other.Ref) {
			b.wantCode(err, errs.StaleEpoch, name)
		}
		_, err := b.Driver().Kill(b.ctx, other.Ref)
		b.wantCode(err, errs.StaleEpoch, "kill")
	}
	_, err := b.Driver().Launch(b.ctx, at(m, 4))
	b.wantCode(err, errs.StaleEpoch, "launch of a lower epoch")
	_, err = b.Driver().Launch(b.ctx, at(m, 6))
	b.wantCode(err, errs.InvalidState, "launch of a higher epoch beside a live one")
	if got := b.inspect(m.VM); !cmp.Equal(got, before) {
		b.Fatalf("the refused calls changed something:\n%s", cmp.Diff(before, got))
	}
	if got := len(b.rec.Of(m.VM)); got != seen {
		b.Fatalf("the refused calls were seen by the sink: %+v", b.rec.Of(m.VM)[seen:])
	}
	b.clean(m)
}

func endedEpoch(b *bench) {
	m := at(b.Machine(b.T, Polite), 2)
	b.start(m)
	b.kill(m.Ref)
	_, err := b.Driver().Launch(b.ctx, m)
	b.wantCode(err, errs.InvalidState, "launch of an ended epoch")
	_, err = b.Driver().Launch(b.ctx, at(m, 1))
	b.wantCode(err, errs.StaleEpoch, "launch below an ended epoch")
	if s := b.inspect(m.VM); s.Phase != vm.PhaseExited || s.Ref != m.Ref {
		b.Fatalf("the refused launches left %+v", s)
	}
	b.release(m.VM)
	b.start(m)
	b.clean(m)
}

func nextEpoch(b *bench) {
	m := b.launch(Polite)
	b.kill(m.Ref)
	next := at(m, m.Epoch+1)
	b.start(next)
	for name, err := range b.everyCall(m.Ref) {
		b.wantCode(err, errs.StaleEpoch, name+" of the epoch before")
	}
	_, err := b.Driver().Kill(b.ctx, m.Ref)
	b.wantCode(err, errs.StaleEpoch, "kill of the epoch before")
	b.clean(next)
}
