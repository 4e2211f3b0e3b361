package sim

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"maps"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

var _ contract.Migrator = (*Driver)(nil)

// send is a guest's move to another host, under way or at its end.
type send struct {
	Migration id.ID `json:"migration"`
	// Halted: did the move halt it?
	Halted bool `json:"halted,omitempty"`
	// Sent: has the target everything?
	Sent bool `json:"sent,omitempty"`
}

// message is what goes through a stream, one JSON value each, and answer what comes back
// once the first was believed, and once the last was.
type (
	message struct {
		// Migration, Request and Shown, the landing's pass, are of the first: who comes.
		Migration id.ID  `json:"migration,omitzero"`
		Request   []byte `json:"request,omitempty"`
		Shown     []byte `json:"shown,omitempty"`
		// Disk of which something comes, and Memory: that something of it does.
		Disk   id.ID `json:"disk,omitzero"`
		Memory bool  `json:"memory,omitempty"`
		// State is of the last: what the guest is.
		State *state `json:"state,omitempty"`
		// End is of the last of a stream of disks.
		End bool `json:"end,omitempty"`
	}
	answer struct {
		OK bool `json:"ok"`
	}
	// state is what a simulated guest's memory comes down to.
	state struct {
		Disks  map[id.ID]int64 `json:"disks,omitempty"`
		Medium string          `json:"medium,omitempty"`
		Frozen bool            `json:"frozen,omitempty"`
	}
)

// Depart implements contract.Migrator.
func (d *Driver) Depart(ctx context.Context, r contract.Ref, migration id.ID, o contract.MoveOptions) (contract.Departure, error) {
	o, err := o.Complete()
	if err != nil {
		return contract.Departure{}, err
	}
	_, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return contract.Departure{}, err
	}
	defer leave()
	h := d.host
	h.mu.Lock()
	defer h.mu.Unlock()
	g, err := d.movable(r)
	if err != nil {
		return contract.Departure{}, err
	}
	request := make([]byte, 16)
	_, _ = rand.Read(request)
	g.warm, g.interval, g.over = o.Warm, o.Interval, false
	g.patience, g.means = o.Patience, contract.Adjustment{Downtime: o.Downtime}
	g.departed = contract.Departure{
		Migration: migration, Hypervisor: "sim", Version: "1",
		Disks: maps.Clone(g.disks), Medium: g.medium, Paused: g.status.Phase == vm.PhasePaused,
		Request: request, Channels: o.Channels, Compression: o.Compression,
	}
	maps.DeleteFunc(g.departed.Disks, func(k id.ID, _ int64) bool { return g.fixed[k] })
	return g.departed, nil
}

// movable is booted for a guest that can be moved. It is called with host.mu held.
func (d *Driver) movable(r contract.Ref) (*guest, error) {
	g, err := d.booted(r)
	switch {
	case err != nil:
		return nil, err
	case g.send != nil:
		return nil, errs.New(errs.InvalidState, "VM %s has been sent to another host: kill it here, or resume it", r.VM)
	case g.frozen:
		return nil, errs.New(errs.InvalidState, "the file systems in the guest of VM %s are frozen: thaw them first", r.VM)
	case g.status.Phase == vm.PhaseStopping:
		return nil, errs.New(errs.InvalidState, "VM %s is being shut down", r.VM)
	}
	return g, nil
}

// Send implements contract.Migrator.
func (d *Driver) Send(ctx context.Context, r contract.Ref, to contract.Landing, dial contract.Dial, progress func(contract.Progress)) (contract.Status, error) {
	ctx, leave, err := d.begin(ctx, r.VM)
	if err != nil {
		return contract.Status{}, err
	}
	defer leave()
	h := d.host
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h.mu.Lock()
	g, err := d.maySend(r, to)
	if err != nil || g.send != nil {
		defer h.mu.Unlock()
		return statusOf(g, err)
	}
	g.send, g.breakOff = &send{Migration: to.Migration}, cancel
	h.save(g)
	defer context.AfterFunc(g.done, cancel)()
	h.mu.Unlock()
	m := move{d: d, g: g, to: to, dial: dial, patience: g.patience, isWarm: g.warm, interval: g.interval, began: h.opt.Clock.Boot(), tell: progress}
	err = m.run(ctx)
	if d.dead() {
		return contract.Status{}, errDead() // left as it is, for the next agent
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.settleSend(g, err)
}

func statusOf(g *guest, err error) (contract.Status, error) {
	if err != nil {
		return contract.Status{}, err
	}
	return g.status, nil
}

// maySend gives the guest of a send; one that was sent already has its send. It is called
// with host.mu held.
func (d *Driver) maySend(r contract.Ref, to contract.Landing) (*guest, error) {
	if g, err := d.live(r); err == nil && g.send != nil && g.send.Sent && g.send.Migration == to.Migration {
		return g, nil
	}
	g, err := d.movable(r)
	switch {
	case err != nil:
		return nil, err
	case to.Ref.VM != r.VM || to.Ref.Epoch <= r.Epoch:
		return nil, errs.New(errs.InvalidField, "VM %s cannot land as VM %s under owner epoch %d", r.VM, to.Ref.VM, to.Ref.Epoch)
	case len(g.departed.Request) == 0 || g.departed.Migration != to.Migration:
		return nil, errs.New(errs.InvalidState, "VM %s has not departed for this move: begin it anew", r.VM)
	}
	return g, nil
}

// settleSend ends a send: the guest is sent, or as it was. It is called with h.mu held.
func (h *Host) settleSend(g *guest, err error) (contract.Status, error) {
	g.breakOff = nil
	switch {
	case !g.status.Phase.OnNode():
		g.send = nil
		return contract.Status{}, errs.New(errs.InvalidState, "VM %s ended while it was sent: %s", g.status.VM, g.status.Reason).Because(err)
	case err != nil:
		h.goOn(g)
		return contract.Status{}, err
	}
	g.send.Sent = true
	h.change(g, vm.PhasePaused, contract.SentAway)
	return g.status, nil
}

// goOn takes a send back. It is called with h.mu held.
func (h *Host) goOn(g *guest) {
	was := g.send
	g.send = nil
	if was.Halted {
		h.change(g, vm.PhaseRunning, "")
		return
	}
	h.save(g)
}

// breakSend ends a send under way, for who is to have the VM's turn now.
func (h *Host) breakSend(r contract.Ref) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g, ok := h.guests[r.VM]; ok && g.status.Epoch == r.Epoch && g.breakOff != nil {
		g.breakOff()
	}
}

// move is a send under way.
type move struct {
	d        *Driver
	g        *guest
	to       contract.Landing
	dial     contract.Dial
	patience time.Duration
	// isWarm: does it send the disks in rounds, and at what interval?
	isWarm   bool
	interval time.Duration
	began    time.Duration
	at       contract.Progress
	tell     func(contract.Progress)
}

// run brings everything to the target.
func (m *move) run(ctx context.Context) error {
	type stage struct {
		at contract.Stage
		do func(context.Context) error
	}
	disks := stage{contract.StageDisks, m.sendDisks}
	if m.isWarm {
		disks = stage{contract.StageWarm, m.warm}
	}
	for _, s := range []stage{disks, {contract.StageMemory, m.sendMemory}} {
		if err := m.begin(ctx, s.at); err != nil {
			return err
		}
		if err := s.do(ctx); err != nil {
			return m.broken(ctx, err)
		}
	}
	m.at.MemoryRemaining = 0
	m.report(contract.StageSent)
	return nil
}

// begin tells of a stage, and fails where a fault says so.
func (m *move) begin(ctx context.Context, s contract.Stage) error {
	if m.isWarm && s == contract.StageMemory {
		return nil // its guest is halted already
	}
	m.report(s)
	h := m.d.host
	h.mu.Lock()
	f := h.faultsOf(m.to.Ref.VM)
	hang := f.HangSend == s
	var err error
	if f.SendAt == s || f.SendAt == "" && (s == contract.StageDisks || s == contract.StageWarm) {
		err = f.Send.take("send")
	}
	h.mu.Unlock()
	if hang {
		<-ctx.Done()
		return m.broken(ctx, ctx.Err())
	}
	return err
}

func (m *move) report(s contract.Stage) {
	m.at.Stage = s
	m.at.Total = m.d.host.opt.Clock.Boot() - m.began
	if m.tell != nil {
		m.tell(m.at)
	}
}

// broken words why a send did not come to its end.
func (m *move) broken(ctx context.Context, err error) error {
	if errs.CodeOf(err) != errs.Internal {
		return err
	}
	if ctx.Err() != nil {
		return errs.New(errs.Cancelled, "the move of VM %s was broken off, and it goes on here", m.to.Ref.VM).Because(err)
	}
	return errs.New(errs.HostFailure, "the stream to the other host broke, and VM %s goes on here", m.to.Ref.VM).Because(err)
}

// line is a stream in which both ends speak JSON.
type line struct {
	io.ReadWriteCloser
	in  *json.Decoder
	out *json.Encoder
}

func newLine(c io.ReadWriteCloser) line {
	return line{c, json.NewDecoder(c), json.NewEncoder(c)}
}

// agreed waits for an answer.
func (l line) agreed() error {
	var a answer
	if err := l.in.Decode(&a); err != nil {
		return err
	}
	if !a.OK {
		return errs.New(errs.HostFailure, "the other host refused what was sent")
	}
	return nil
}

// answer says whether what came is good.
func (l line) answer(ok bool) error {
	err := l.out.Encode(answer{OK: ok})
	return err
}

// open dials a stream and says who comes.
func (m *move) open(ctx context.Context, s contract.Stream) (line, func(), error) {
	c, err := m.dial(ctx, s)
	if err != nil {
		return line{}, nil, err
	}
	l := newLine(c)
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	end := func() { stop(); _ = c.Close() }
	err = l.out.Encode(message{Migration: m.to.Migration, Request: m.g.departed.Request, Shown: m.to.Pass})
	if err == nil {
		err = l.agreed()
	}
	if err != nil {
		end()
		return line{}, nil, err
	}
	return l, end, nil
}

func (m *move) sendDisks(ctx context.Context) error {
	l, end, err := m.open(ctx, contract.StreamDisks)
	if err != nil {
		return err
	}
	defer end()
	for k, size := range m.g.departed.Disks {
		if err := l.out.Encode(message{Disk: k}); err != nil {
			return err
		}
		m.at.DisksMoved += size
		m.report(m.at.Stage)
	}
	if err := l.out.Encode(message{End: true}); err != nil {
		return err
	}
	return l.agreed()
}

// sendMemory sends the memory, halts the guest, and sends the rest.
func (m *move) sendMemory(ctx context.Context) error {
	l, end, err := m.open(ctx, contract.StreamMemory)
	if err != nil {
		return err
	}
	defer end()
	if err := l.out.Encode(message{Memory: true}); err != nil {
		return err
	}
	h := m.d.host
	if err := m.rounds(ctx); err != nil {
		return err
	}
	if err := h.wait(ctx, m.to.Ref.VM, TransitionSend); err != nil {
		return err
	}
	if err := m.halt(); err != nil {
		return err
	}
	h.mu.Lock()
	last := state{Disks: maps.Clone(m.g.disks), Medium: m.g.medium, Frozen: m.g.frozen}
	h.mu.Unlock()
	if err := m.begin(ctx, contract.StageSwitchover); err != nil {
		return err
	}
	patient, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		if h.opt.Clock.Sleep(patient, m.patience) == nil {
			_ = l.Close()
		}
	}()
	if err := l.out.Encode(message{State: &last}); err != nil {
		return err
	}
	return l.agreed()
}

// halt halts the guest for the rest.
func (m *move) halt() error {
	h := m.d.host
	defer h.flush()
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.d.dead() || m.g.send == nil { // another driver has settled it
		return errDead()
	}
	if m.g.status.Phase == vm.PhaseRunning {
		m.g.send.Halted = true
		h.change(m.g, vm.PhasePaused, "")
	}
	return nil
}
