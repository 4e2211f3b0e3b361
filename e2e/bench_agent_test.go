package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/novacron/novacron/internal/agent/daemon"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/qemu"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// timedFace makes the test's binary an agent, as timedEnv says, that writes down how long
// its hypervisor's driver takes for what a migration asks of it.
const (
	timedFace = "timed-agent"
	timedEnv  = "NOVACRON_BENCH_AGENT"
)

// timedConfig is how such an agent is to be.
type timedConfig struct {
	Name, DataDir, RunDir, RAMDir, Join string
	Bridges                             []string
	// Calls is the file that it writes to.
	Calls string
}

func timedMain() int {
	var c timedConfig
	err := json.Unmarshal([]byte(os.Getenv(timedEnv)), &c)
	var calls *os.File
	if err == nil {
		calls, err = os.OpenFile(c.Calls, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err = daemon.Run(ctx, daemon.Options{
		Name: c.Name, DataDir: c.DataDir, RunDir: c.RunDir, RAMDir: c.RAMDir, Join: c.Join, Bridges: c.Bridges, Share: 2,
		Acceleration: "tcg", Version: "bench", Clock: clock.System{},
		Log:        slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Hypervisor: func(d contract.Driver) contract.Driver { return &timed{Driver: d.(*qemu.Driver), to: calls} },
	})
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// span is from when to when, by the host's clock since its start, a driver did something.
type span struct {
	What  string
	Begin time.Duration
	End   time.Duration
}

// What of a driver is written down beside its calls.
const (
	spanMemory  = "memory" // of a send: from before the guest is halted for it, or it begins, until all is sent
	spanArrived = "arrived"
)

// timed is the driver.
type timed struct {
	*qemu.Driver
	mu sync.Mutex
	to *os.File
}

// began gives what to call at the end of what begins now.
func (d *timed) began(what string) (end func()) {
	begin := clock.System{}.Boot()
	return func() { d.note(span{What: what, Begin: begin, End: clock.System{}.Boot()}) }
}

func (d *timed) note(s span) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := json.NewEncoder(d.to).Encode(s); err != nil {
		slog.Error("how long a driver takes cannot be written down", "error", err)
	}
}

// Depart implements contract.Migrator.
func (d *timed) Depart(ctx context.Context, r contract.Ref, migration id.ID, o contract.MoveOptions) (contract.Departure, error) {
	defer d.began("depart")()
	return d.Driver.Depart(ctx, r, migration, o)
}

// Receive implements contract.Migrator.
func (d *timed) Receive(ctx context.Context, m contract.Machine, from contract.Departure) (contract.Landing, error) {
	defer d.began("receive")()
	return d.Driver.Receive(ctx, m, from)
}

// Send implements contract.Migrator.
func (d *timed) Send(ctx context.Context, r contract.Ref, to contract.Landing, dial contract.Dial, progress func(contract.Progress)) (contract.Status, error) {
	defer d.began("send")()
	var memory func()
	return d.Driver.Send(ctx, r, to, dial, func(p contract.Progress) {
		switch {
		case p.Stage == contract.StageSent && memory != nil:
			memory()
		case p.Stage != contract.StageDisks && memory == nil:
			memory = d.began(spanMemory)
		}
		progress(p)
	})
}

// Arrived implements contract.Migrator.
func (d *timed) Arrived(ctx context.Context, r contract.Ref) (contract.Status, error) {
	defer d.began(spanArrived)()
	return d.Driver.Arrived(ctx, r)
}

// Resume implements contract.Driver.
func (d *timed) Resume(ctx context.Context, r contract.Ref) (contract.Status, error) {
	defer d.began("resume")()
	return d.Driver.Resume(ctx, r)
}

// Kill implements contract.Driver.
func (d *timed) Kill(ctx context.Context, r contract.Ref) (contract.Status, error) {
	defer d.began("kill")()
	return d.Driver.Kill(ctx, r)
}

// Release implements contract.Driver.
func (d *timed) Release(ctx context.Context, vm id.ID) error {
	defer d.began("release")()
	return d.Driver.Release(ctx, vm)
}

// otherFace is what the test's binary is when it is started as something else than the
// test: an agent, or one of the small processes beside its guests.
func otherFace() (code int, is bool) {
	if len(os.Args) < 2 {
		return 0, false
	}
	switch os.Args[1] {
	case keeper.Face:
		return keeper.Main(os.Args[2:]), true
	case keeper.ExecFace:
		return keeper.ExecMain(os.Args[2:]), true
	case timedFace:
		return timedMain(), true
	}
	return 0, false
}
