package hypertest

import (
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func releaseCases() []testCase {
	return []testCase{
		{"Release is refused while a process lives", releaseRefused},
		{"Release leaves nothing and may be repeated", releases},
		{"Release of a crashed machine leaves nothing", releasesCrashed},
	}
}

func releaseRefused(b *bench) {
	m := b.launch(Polite)
	b.wantCode(b.Driver().Release(b.ctx, m.VM), errs.InvalidState, "release of a running machine")
	if b.Driver().Capabilities().Pause {
		if _, err := b.Driver().Pause(b.ctx, m.Ref); err != nil {
			b.Fatal(err)
		}
		b.wantCode(b.Driver().Release(b.ctx, m.VM), errs.InvalidState, "release of a paused machine")
	}
	if s := b.inspect(m.VM); !s.Phase.OnNode() {
		b.Fatalf("the refused release left %+v", s)
	}
	if len(b.Leftovers()) == 0 {
		b.Fatal("a host with a live guest claims to hold nothing: the oracle of this suite is blind")
	}
	b.clean(m)
}

func releases(b *bench) {
	m := b.launch(Polite)
	b.kill(m.Ref)
	b.release(m.VM)
	_, err := b.Driver().Inspect(b.ctx, m.VM)
	b.wantCode(err, errs.NotFound, "inspect after release")
	_, err = b.Driver().Log(b.ctx, m.VM, false)
	b.wantCode(err, errs.NotFound, "log after release")
	b.release(m.VM)
	b.release(id.New())
	b.Away(b.T, nil)
	if got := b.adopt(); len(got) != 0 {
		b.Fatalf("adopt after release found %+v", got)
	}
	b.clean()
}

func releasesCrashed(b *bench) {
	m := b.launch(Polite)
	b.CrashGuest(b.T, m.VM)
	b.await(m.Ref, vm.PhaseCrashed)
	b.release(m.VM)
	b.clean()
}
