package qemu

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
	"github.com/novacron/novacron/internal/vocab/errs"
)

const (
	// answerTime is how long a hypervisor may take to answer a question.
	answerTime = 3 * time.Second
	// dyingTime is how long a process may take from its last word to its end.
	dyingTime = 500 * time.Millisecond
	// retryFirst and retryLast space the attempts to reach a silent one.
	retryFirst, retryLast = 250 * time.Millisecond, 15 * time.Second

	silent = "the hypervisor does not answer"
)

// guest is the last incarnation of one VM.
type guest struct {
	d   *Driver
	ref contract.Ref
	at  places
	rec machineRecord

	// early: it ended before the launch could take hold of it.
	early bool
	// ended is closed when the end is settled: judged, recorded, told.
	ended chan struct{}
	// line is taken by who talks with the agent in the guest.
	line chan struct{}

	mu     sync.Mutex
	status contract.Status
	proc   keeper.Proc
	hv     *process.Handle // nil once gone, and for a guest that had ended before
	mon    *qmp.Client     // nil while not connected
	asked  askedRecord
	// pressed: this driver asked for a shutdown. What an earlier one asked is known
	// for the judgement of the end; a guest that did not act on it runs on.
	pressed bool
	resets  resets
	trouble string // of a disk, until the guest continues
	muted   bool   // changes are for Adopt's caller, not for the sink
	// departed is its last departure, and breakOff ends a move under way; nil for none.
	departed *departed
	breakOff context.CancelFunc
	// entrants are the streams that lead into one that waits.
	entrants entrants
	// nudge has something in it when the hypervisor told of a migration or a job.
	nudge chan struct{}
}

// newGuest makes the memory of an incarnation.
func (d *Driver) newGuest(rec machineRecord) *guest {
	return &guest{
		d: d, ref: rec.Machine.Ref, at: d.opt.places(rec.Machine.VM), rec: rec,
		ended: make(chan struct{}), line: make(chan struct{}, 1), nudge: make(chan struct{}, 1),
		status: contract.Status{Ref: rec.Machine.Ref},
	}
}

// Status is the last status known.
func (g *guest) Status() contract.Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status
}

// change sets phase and reason and queues the change for the sink. It is called
// with g.mu held; whoever called flushes after unlocking.
func (g *guest) change(p vm.Phase, reason string) {
	if !g.status.Phase.OnNode() && g.status.Phase != "" {
		return // ended is ended
	}
	if g.status.Phase == p && g.status.Reason == reason {
		return
	}
	if g.status.Phase != p {
		g.status.Since = g.d.opt.Clock.Now()
	}
	g.status.Phase, g.status.Reason = p, reason
	g.status.PID = 0
	if p.OnNode() {
		g.status.PID = g.proc.Hypervisor.PID
	}
	if !g.muted {
		g.d.out.Put(g.status)
	}
}

// noteAsked remembers, first on disk, what was asked of the guest.
func (g *guest) noteAsked(what askedRecord) error {
	defer g.d.out.Flush()
	g.mu.Lock()
	defer g.mu.Unlock()
	asked := g.asked
	asked.Shutdown, asked.Kill, asked.Failed = asked.Shutdown || what.Shutdown, asked.Kill || what.Kill, cmp.Or(asked.Failed, what.Failed)
	if asked != g.asked {
		if err := g.write(askedFile, asked); err != nil {
			return err
		}
		g.asked = asked
	}
	g.pressed = g.pressed || what.Shutdown
	if g.status.Phase == vm.PhaseRunning && g.pressed {
		g.change(vm.PhaseStopping, g.status.Reason)
	}
	return nil
}

// write keeps a record of this VM.
func (g *guest) write(name string, v any) error {
	root, err := g.d.vms.OpenRoot(g.ref.VM.String())
	if err == nil {
		err = durable.WriteJSON(root, name, v)
		_ = root.Close()
	}
	if err != nil {
		return errs.New(errs.HostFailure, "the records of VM %s cannot be written", g.ref.VM).Because(err)
	}
	return nil
}

// read reads a record of this VM.
func (g *guest) read(name string, v any) error {
	root, err := g.d.vms.OpenRoot(g.ref.VM.String())
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return durable.ReadJSON(root, name, v)
}

// timed bounds a conversation with the hypervisor.
func (g *guest) timed(ctx context.Context) (context.Context, func()) {
	return g.d.within(ctx, answerTime)
}

// within gives a context that also ends after a time of the driver's clock.
func (d *Driver) within(ctx context.Context, t time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_ = d.opt.Clock.Sleep(ctx, t)
		cancel()
	}()
	return ctx, cancel
}

// gone tells whether the process has ended, giving one whose connection just
// broke a moment to do so.
func (g *guest) gone(ctx context.Context, h *process.Handle) bool {
	ctx, cancel := g.d.within(ctx, dyingTime)
	defer cancel()
	select {
	case <-h.Ended():
		return true
	case <-ctx.Done():
		return false
	}
}

// connect makes the control connection and takes over what the hypervisor says
// of itself.
func (g *guest) connect(ctx context.Context) error {
	ctx, cancel := g.timed(ctx)
	defer cancel()
	c, err := qmp.Dial(ctx, g.at.control(), qmp.Options{Clock: g.d.opt.Clock, OnEvent: g.onEvent})
	if err != nil {
		return err
	}
	var is struct {
		UUID string `json:"UUID"`
	}
	err = c.Execute(ctx, "query-uuid", nil, &is)
	if err == nil && is.UUID != g.ref.VM.String() {
		err = errors.New("another machine answers at this VM's socket")
	}
	if err != nil {
		_ = c.Close()
		return err
	}
	g.mu.Lock()
	old := g.mon
	g.mon = c
	g.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
	return g.query(ctx, c)
}

// query reads the run state.
func (g *guest) query(ctx context.Context, c *qmp.Client) error {
	var is struct {
		Status string `json:"status"`
	}
	if err := c.Execute(ctx, "query-status", nil, &is); err != nil {
		return err
	}
	trouble := ""
	if is.Status == "io-error" {
		trouble = g.findTrouble(ctx, c)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	p, reason := g.phaseOfMove(phaseOf(is.Status, g.pressed))
	if is.Status == "io-error" {
		if trouble != "" {
			g.trouble = trouble
		}
		if g.trouble != "" {
			reason = g.trouble
		}
	}
	g.change(p, reason)
	if reason == panicked {
		g.failed(panicked) // while nobody listened
	}
	return nil
}

// findTrouble asks which disk halted the guest.
func (g *guest) findTrouble(ctx context.Context, c *qmp.Client) string {
	var blocks []struct {
		IOStatus string `json:"io-status"`
		Inserted struct {
			Node string `json:"node-name"`
		} `json:"inserted"`
	}
	if err := c.Execute(ctx, "query-block", nil, &blocks); err != nil {
		return ""
	}
	for _, b := range blocks {
		if b.IOStatus == "nospace" || b.IOStatus == "failed" {
			return diskTrouble(b.Inserted.Node, b.IOStatus == "nospace")
		}
	}
	return ""
}

// refresh asks a live guest how it is. One that does not answer keeps its phase,
// with the reason.
func (g *guest) refresh(ctx context.Context) {
	g.mu.Lock()
	c, hv, live := g.mon, g.hv, g.status.Phase.OnNode() && g.hv != nil
	g.mu.Unlock()
	if !live {
		return
	}
	err := qmp.ErrClosed
	if c != nil {
		timed, cancel := g.timed(ctx)
		err = g.query(timed, c)
		cancel()
	}
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, qmp.ErrClosed) && g.gone(ctx, hv):
		g.awaitEnd(ctx)
	default:
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.status.Phase.OnNode() {
			g.change(g.status.Phase, silent)
		}
	}
}

// awaitEnd waits until the end of a process that is gone is settled.
func (g *guest) awaitEnd(ctx context.Context) {
	ctx, cancel := g.timed(ctx)
	defer cancel()
	select {
	case <-g.ended:
	case <-ctx.Done():
	}
}

// ask gives a command to a live guest.
func (g *guest) ask(ctx context.Context, name string) error { return g.tell(ctx, name, nil, nil) }

// tell is ask with arguments and an answer; out may be nil.
func (g *guest) tell(ctx context.Context, name string, args, out any) error {
	g.mu.Lock()
	c := g.mon
	g.mu.Unlock()
	if c == nil {
		return errs.New(errs.HostFailure, "the hypervisor of VM %s does not answer", g.ref.VM)
	}
	ctx, cancel := g.timed(ctx)
	defer cancel()
	err := c.Execute(ctx, name, args, out)
	var refused *qmp.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return errs.New(errs.GuestFailure, "the hypervisor of VM %s refused %s", g.ref.VM, name).Because(err)
	default:
		return errs.New(errs.HostFailure, "the hypervisor of VM %s does not answer", g.ref.VM).Because(err)
	}
}

// onEvent follows what the hypervisor tells by itself. It runs on the reading
// goroutine, so the sink is called from another.
func (g *guest) onEvent(e qmp.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if isOfMove(e.Name) {
		select {
		case g.nudge <- struct{}{}:
		default:
		}
		return
	}
	switch e.Name {
	case "STOP":
		if g.status.Phase != vm.PhaseStarting && g.status.Phase != vm.PhaseIncoming {
			g.change(vm.PhasePaused, g.trouble)
		}
	case "RESUME":
		g.trouble = ""
		p, _ := phaseOf("running", g.pressed)
		g.change(p, "")
	case "BLOCK_IO_ERROR":
		g.noteTrouble(e.Data)
	case "GUEST_PANICKED":
		g.failed(panicked)
	case "SHUTDOWN":
		g.change(vm.PhaseStopping, g.status.Reason)
	case "NETDEV_STREAM_CONNECTED":
		if g.status.Phase != vm.PhaseStarting && g.status.Phase != vm.PhaseIncoming {
			g.d.background(g.announce)
		}
	case "RESET":
		g.noteReset(e.Data)
	default:
		return
	}
	g.d.background(g.d.out.Flush)
}

// noteTrouble reads a BLOCK_IO_ERROR. STOP follows it when the guest is halted.
func (g *guest) noteTrouble(data json.RawMessage) {
	var e struct {
		Node    string `json:"node-name"`
		Action  string `json:"action"`
		NoSpace bool   `json:"nospace"`
	}
	if json.Unmarshal(data, &e) == nil && e.Action == "stop" {
		g.trouble = diskTrouble(e.Node, e.NoSpace)
		g.d.log.Warn("guest halted", "vm", g.ref.VM, "reason", g.trouble)
	}
}

// background runs f unless the driver is being closed, which waits for it.
func (d *Driver) background(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead() {
		return
	}
	d.work.Go(f)
}

// hold takes hold of the hypervisor's process; it gives process.ErrGone when
// there is none.
func (g *guest) hold(p keeper.Proc) error {
	h, err := process.Open(p.Hypervisor)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.proc, g.hv = p, h
	return nil
}

// watch follows a live guest in the background: its end, and its control
// connection, which is made anew whenever it is lost.
func (g *guest) watch() {
	g.d.background(g.watchEnd)
	g.d.background(g.watchControl)
}

func (g *guest) watchEnd() {
	g.mu.Lock()
	hv := g.hv
	g.mu.Unlock()
	select {
	case <-hv.Ended():
		g.settle(g.d.life)
		g.d.out.Flush()
	case <-g.ended:
	case <-g.d.life.Done():
	}
}

func (g *guest) watchControl() {
	wait := retryFirst
	for {
		g.mu.Lock()
		c := g.mon
		g.mu.Unlock()
		if c != nil {
			select {
			case <-c.Done():
			case <-g.ended:
				return
			case <-g.d.life.Done():
				return
			}
		}
		select {
		case <-g.ended:
			return
		default:
		}
		if err := g.connect(g.d.life); err == nil {
			wait = retryFirst
			g.d.out.Flush()
			continue
		}
		if g.d.opt.Clock.Sleep(g.d.life, wait) != nil {
			return
		}
		wait = min(2*wait, retryLast)
	}
}

// abandon ends the watch over an incarnation that is being thrown away, without
// a judgement of its end.
func (g *guest) abandon() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.ended:
	default:
		close(g.ended)
	}
	g.muted = true
}

// letGo frees the driver's own hold; the guest goes on.
func (g *guest) letGo() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mon != nil {
		_ = g.mon.Close()
	}
	if g.hv != nil {
		_ = g.hv.Close()
	}
}

// removeAll is os.Root.RemoveAll that is content with nothing.
func removeAll(root *os.Root, name string) error {
	if err := root.RemoveAll(name); err != nil && !missing(err) {
		return err
	}
	return nil
}
