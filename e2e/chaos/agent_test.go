package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/novacron/novacron/internal/agent/daemon"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/qemu"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// agentFace makes the test's binary an agent, as agentEnv says.
const (
	agentFace = "chaos-agent"
	agentEnv  = "NOVACRON_CHAOS_AGENT"
)

// agentConfig is how an agent is to be.
type agentConfig struct {
	Name, DataDir, RunDir, RAMDir, Join, Boot, QEMU string
	Bridges                                         []string
	SwapPatience                                    time.Duration
	// Gate is told of points.
	Gate string
	// Mistake that the agent is to make.
	Mistake mistake
}

func agentMain() int {
	var c agentConfig
	if err := json.Unmarshal([]byte(os.Getenv(agentEnv)), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := daemon.Run(ctx, daemon.Options{
		Name: c.Name, DataDir: c.DataDir, RunDir: c.RunDir, RAMDir: c.RAMDir, Join: c.Join, Boot: c.Boot, QEMU: c.QEMU, Bridges: c.Bridges, Share: 3,
		Acceleration: "tcg", SwapPatience: c.SwapPatience, Version: "chaos", Clock: clock.System{},
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Hypervisor: func(d contract.Driver) contract.Driver {
			return &gated{Driver: d.(*qemu.Driver), at: caller{who: c.Name, path: c.Gate}.at, mistake: c.Mistake}
		},
	})
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// mistake is one in a step of the commit rule that an agent can be given.
type mistake string

// The mistakes.
const (
	// executesEarly: step 1, the target's guest executes before it was asked for.
	executesEarly mistake = "executes-early"
	// sourceGoesOn: step 2, the source goes on instead of being killed.
	sourceGoesOn mistake = "source-goes-on"
	// targetLives: step 3, a target that was refused is not killed, and goes on.
	targetLives mistake = "target-lives"
	// sourceDecides: step 4, the source goes on by itself when it hears nothing.
	sourceDecides mistake = "source-decides"
)

// gated is the driver with a gate at each point.
type gated struct {
	*qemu.Driver
	at      func(point)
	mistake mistake
}

// Depart implements contract.Migrator.
func (d *gated) Depart(ctx context.Context, r contract.Ref, migration id.ID, o contract.MoveOptions) (contract.Departure, error) {
	d.at(atDepart)
	return d.Driver.Depart(ctx, r, migration, o)
}

// Receive implements contract.Migrator.
func (d *gated) Receive(ctx context.Context, m contract.Machine, from contract.Departure) (contract.Landing, error) {
	d.at(atReceive)
	l, err := d.Driver.Receive(ctx, m, from)
	if err == nil {
		d.at(atReceived)
	}
	return l, err
}

// Send implements contract.Migrator.
func (d *gated) Send(ctx context.Context, r contract.Ref, to contract.Landing, dial contract.Dial, progress func(contract.Progress)) (contract.Status, error) {
	seen := map[contract.Stage]bool{contract.StageSent: true}
	s, err := d.Driver.Send(ctx, r, to, dial, func(p contract.Progress) {
		progress(p)
		// a guest that is halted before its memory is sent is not at the end yet
		if !seen[p.Stage] && (p.Stage != contract.StageSwitchover || p.MemoryMoved > 0) {
			seen[p.Stage] = true
			d.at(point(p.Stage))
		}
	})
	if err == nil {
		d.at(atSent)
		if d.mistake == sourceDecides {
			go d.decide(r)
		}
	}
	return s, err
}

// decide is a source that does not wait for a verdict.
func (d *gated) decide(r contract.Ref) {
	_ = clock.System{}.Sleep(context.Background(), 200*time.Millisecond)
	_, _ = d.Driver.Resume(context.Background(), r)
}

// Arrived implements contract.Migrator.
func (d *gated) Arrived(ctx context.Context, r contract.Ref) (contract.Status, error) {
	s, err := d.Driver.Arrived(ctx, r)
	if err == nil {
		if d.mistake == executesEarly {
			_, _ = d.Driver.Resume(ctx, r)
		}
		d.at(atArrived)
	}
	return s, err
}

// Resume implements contract.Driver.
func (d *gated) Resume(ctx context.Context, r contract.Ref) (contract.Status, error) {
	is, err := d.Driver.Inspect(ctx, r.VM)
	if err != nil || is.Phase != vm.PhaseIncoming {
		return d.Driver.Resume(ctx, r)
	}
	d.at(atGranted)
	s, err := d.Driver.Resume(ctx, r)
	if err == nil {
		d.at(atRunning)
	}
	return s, err
}

// Kill implements contract.Driver.
func (d *gated) Kill(ctx context.Context, r contract.Ref) (contract.Status, error) {
	is, err := d.Driver.Inspect(ctx, r.VM)
	switch {
	case err != nil:
	case is.Reason == contract.SentAway:
		d.at(atEnding)
		if d.mistake == sourceGoesOn {
			return d.Driver.Resume(ctx, r)
		}
		s, err := d.Driver.Kill(ctx, r)
		if err == nil {
			d.at(atEnded)
		}
		return s, err
	case d.mistake == targetLives && is.Phase == vm.PhaseIncoming:
		return d.Driver.Resume(ctx, r)
	}
	return d.Driver.Kill(ctx, r)
}
