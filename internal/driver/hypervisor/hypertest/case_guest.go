package hypertest

import (
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func guestCases() []testCase {
	return []testCase{
		{"A guest without an agent is told as that, and runs nothing", asksSilentGuest},
		{"A guest whose agent answers tells of itself, and runs programs", asksAnsweringGuest},
		{"Guest and Run refuse what is not there", guestRefuses},
		{"Glance tells what Guest does", glancesAtSilentGuest},
		{"Glance tells what Guest does, and a frozen guest thaws", glancesAtAnsweringGuest},
	}
}

// guester gives the driver's ability, or checks that it denies having it.
func (b *bench) guester() (contract.Guester, bool) {
	b.Helper()
	g, is := b.Driver().(contract.Guester)
	if is != b.Driver().Capabilities().GuestAgent {
		b.Fatalf("the driver is a Guester: %v; its capabilities say %v", is, !is)
	}
	return g, is
}

func asksSilentGuest(b *bench) { b.asks(Polite) }

func asksAnsweringGuest(b *bench) { b.asks(Answering) }

// answers waits until the agent in a guest that has one answers.
func (b *bench) answers(g contract.Guester, m contract.Machine) contract.Guest {
	b.Helper()
	for {
		is, err := g.Guest(b.ctx, m.Ref)
		if err != nil {
			b.Fatal(err)
		}
		if is.Agent == contract.AgentConnected {
			return is
		}
		if (clock.System{}).Sleep(b.ctx, 20*time.Millisecond) != nil {
			b.Fatalf("its agent is %s still", is.Agent)
		}
	}
}

// look asks a guest of a kind.
func (b *bench) look(g contract.Guester, k Kind, m contract.Machine) contract.Guest {
	b.Helper()
	b.ready(m.VM)
	if k == Answering {
		return b.answers(g, m)
	}
	is, err := g.Guest(b.ctx, m.Ref)
	if err != nil {
		b.Fatal(err)
	}
	return is
}

func (b *bench) asks(k Kind) {
	g, ok := b.guester()
	if !ok {
		return
	}
	m := b.launch(k)
	is := b.look(g, k, m)
	run := func(p contract.Program) (contract.Outcome, error) { return g.Run(b.ctx, m.Ref, p) }
	switch is.Agent {
	case contract.AgentConnected:
		if is.Version == "" {
			b.Fatalf("an agent that answers tells %+v", is)
		}
		b.runs(run)
	case contract.AgentAbsent:
		if is.Version != "" || len(is.Interfaces)+len(is.FileSystems) > 0 {
			b.Fatalf("an absent agent tells %+v", is)
		}
		_, err := run(contract.Program{Path: "echo", Time: time.Minute})
		b.wantCode(err, errs.GuestAgent, "without an agent")
	default:
		b.Fatalf("the agent is %q", is.Agent)
	}
	_, err := run(contract.Program{Time: time.Minute})
	b.wantCode(err, errs.InvalidField, "no program")
	_, err = run(contract.Program{Path: "echo", Time: time.Hour})
	b.wantCode(err, errs.OutOfRange, "an hour")
	b.clean(m)
}

// runs expects programs to run.
func (b *bench) runs(run func(contract.Program) (contract.Outcome, error)) {
	b.Helper()
	out, err := run(contract.Program{Path: "echo", Args: []string{"a b", "$HOME"}, Time: time.Minute})
	if err != nil || out.Code != 0 || string(out.Output) != "a b $HOME\n" {
		b.Fatalf("%+v %v", out, err)
	}
	if out, err := run(contract.Program{Path: "false", Time: time.Minute}); err != nil || out.Code != 1 {
		b.Fatalf("%+v %v", out, err)
	}
}

func guestRefuses(b *bench) {
	g, ok := b.guester()
	if !ok {
		return
	}
	m := b.launch(Polite)
	echo := contract.Program{Path: "echo", Time: time.Minute}
	for _, c := range []struct {
		r    contract.Ref
		code errs.Code
	}{
		{contract.Ref{VM: m.VM, Epoch: 7}, errs.StaleEpoch},
		{contract.Ref{VM: id.New(), Epoch: 1}, errs.NotFound},
	} {
		_, err := g.Guest(b.ctx, c.r)
		b.wantCode(err, c.code, "asking")
		_, err = g.Run(b.ctx, c.r, echo)
		b.wantCode(err, c.code, "running")
	}
	b.kill(m.Ref)
	_, err := g.Guest(b.ctx, m.Ref)
	b.wantCode(err, errs.InvalidState, "a guest that ended")
	_, err = g.Run(b.ctx, m.Ref, echo)
	b.wantCode(err, errs.InvalidState, "a guest that ended")
	b.clean(m)
}

func glancesAtSilentGuest(b *bench) { b.glances(Polite) }

func glancesAtAnsweringGuest(b *bench) { b.glances(Answering) }

// glances looks at a guest in passing; where its agent answers, it freezes it.
func (b *bench) glances(k Kind) {
	g, ok := b.guester()
	if !ok {
		return
	}
	f, is := b.Driver().(contract.Freezer)
	if is != b.Driver().Capabilities().Freeze {
		b.Fatalf("the driver is a Freezer: %v; its capabilities say %v", is, !is)
	}
	m := b.launch(k)
	whole := b.look(g, k, m)
	b.sees(g, m.Ref, whole.Agent, false)
	if is {
		b.freezes(g, f, m.Ref, whole.Agent)
	}
	gone := contract.Ref{VM: m.VM, Epoch: 7}
	_, err := g.Glance(b.ctx, gone)
	b.wantCode(err, errs.StaleEpoch, "glancing")
	b.kill(m.Ref)
	if is {
		_, err = f.Freeze(b.ctx, m.Ref)
		b.wantCode(err, errs.InvalidState, "freezing a guest that ended")
		b.wantCode(f.Thaw(b.ctx, m.Ref), errs.InvalidState, "thawing a guest that ended")
		b.wantCode(f.Thaw(b.ctx, gone), errs.StaleEpoch, "thawing another incarnation")
	}
	b.clean(m)
}

// sees expects a look in passing to find this.
func (b *bench) sees(g contract.Guester, r contract.Ref, agent contract.AgentState, frozen bool) {
	b.Helper()
	seen, err := g.Glance(b.ctx, r)
	told := agent == contract.AgentConnected && !frozen
	if err != nil || seen.Agent != agent || seen.Frozen != frozen || seen.Told != told || (!told && len(seen.Interfaces) > 0) {
		b.Fatalf("a look in passing: %+v %v; want the agent %s, frozen %v", seen, err, agent, frozen)
	}
}

func (b *bench) freezes(g contract.Guester, f contract.Freezer, r contract.Ref, agent contract.AgentState) {
	b.Helper()
	if agent != contract.AgentConnected {
		_, err := f.Freeze(b.ctx, r)
		b.wantCode(err, errs.GuestAgent, "freezing without an agent")
		b.wantCode(f.Thaw(b.ctx, r), errs.GuestAgent, "thawing without an agent")
		return
	}
	if _, err := f.Freeze(b.ctx, r); err != nil {
		b.Fatal(err)
	}
	b.sees(g, r, agent, true)
	_, err := f.Freeze(b.ctx, r)
	b.wantCode(err, errs.InvalidState, "freezing twice")
	for range 2 {
		if err := f.Thaw(b.ctx, r); err != nil {
			b.Fatal(err)
		}
	}
	b.sees(g, r, agent, false)
}
