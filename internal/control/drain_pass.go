package control

import (
	"context"
	"fmt"
	"slices"

	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/drain"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// AdvanceDrain takes a drain, or a return, as far as it goes now: VMs whose job has ended
// get their next one, and as many others begin as are worked on at a time. Without begin,
// none does. What is begun and that it was is one write under the claim of the drain's
// job, so that nothing is begun twice. It gives the drain as it is then.
func (s *Service) AdvanceDrain(ctx context.Context, which id.ID, begin bool, write flows.Write) (drain.Drain, error) {
	d, err := s.cfg.Store.DrainGet(ctx, which)
	if err != nil {
		return d, err
	}
	p := &drainPass{Service: s, d: &d, write: write, views: map[id.ID]vm.View{}}
	if begin && d.Kind == drain.Empty {
		err = p.newcomers(ctx)
	}
	if err == nil {
		err = p.advance(ctx, begin)
	}
	if p.changed {
		s.cfg.Committed()
	}
	return d, err
}

// drainPass is one look at a drain.
type drainPass struct {
	*Service
	d     *drain.Drain
	write flows.Write
	nodes []node.Node
	// views are those of VMs that are being worked on.
	views   map[id.ID]vm.View
	changed bool
}

// newcomers puts VMs into the drain that came to the node after it was planned: their
// place was chosen before the node was cordoned.
func (p *drainPass) newcomers(ctx context.Context) error {
	vms, err := p.vmsOn(ctx, p.d.Node.Name)
	if err != nil {
		return err
	}
	for _, v := range vms {
		if slices.ContainsFunc(p.d.Items, func(i drain.Item) bool { return i.VM == v.Intent.ID }) {
			continue
		}
		i := drain.Item{VM: v.Intent.ID, Name: v.Intent.Name, Action: drain.Cold, State: drain.Queued}
		if err := p.write(ctx, func(tx *store.Tx) error { return tx.DrainAdd(ctx, p.d.ID, len(p.d.Items), i) }); err != nil {
			return err
		}
		p.d.Items = append(p.d.Items, i)
	}
	return nil
}

func (p *drainPass) advance(ctx context.Context, begin bool) error {
	if err := p.look(ctx); err != nil {
		return err
	}
	for at := range p.d.Items {
		if p.d.Items[at].State == drain.Running {
			if err := p.follow(ctx, &p.d.Items[at]); err != nil {
				return err
			}
		}
	}
	for at := range p.d.Items {
		if !begin || len(p.d.In(drain.Running)) >= p.d.Parallel {
			return nil
		}
		if p.d.Items[at].State == drain.Queued {
			if err := p.begin(ctx, &p.d.Items[at]); err != nil {
				return err
			}
		}
	}
	return nil
}

// look reads the nodes, and the VMs that are being worked on.
func (p *drainPass) look(ctx context.Context) (err error) {
	if p.nodes, err = p.everyNode(ctx); err != nil {
		return err
	}
	for _, i := range p.d.In(drain.Running) {
		v, err := p.VM(ctx, i.VM.String())
		if errs.Is(err, errs.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		p.views[i.VM] = v
	}
	return nil
}

// room is what the nodes have left for one VM, beside the others.
func (p *drainPass) room(but id.ID) []node.Node {
	nodes := slices.Clone(p.nodes)
	for _, i := range p.d.In(drain.Running) {
		if v, known := p.views[i.VM]; known && i.VM != but {
			drain.Expect(nodes, i, v)
		}
	}
	return nodes
}

// follow gives a VM whose job has ended its next one.
func (p *drainPass) follow(ctx context.Context, i *drain.Item) error {
	if i.Job != nil && i.JobState != "" && !i.JobState.Ended() {
		return nil
	}
	if i.JobState == job.NeedsAttention {
		return p.end(ctx, i, drain.Failed, fmt.Sprintf("job %s stopped half-way: %s", i.Job, i.JobError))
	}
	well := i.Job == nil || i.JobState == job.Succeeded
	why := i.Why
	switch {
	case i.Stage == drain.Restoring && well:
		why += "; it was started again where it is"
	case i.Stage == drain.Restoring:
		why += "; and it does not start again where it is: " + i.JobError
	case !well:
		why = fmt.Sprintf("%s: job %s: %s", i.Stage, i.Job, i.JobError)
	}
	next, end := i.After(i.Stage, well)
	return p.carryOn(ctx, i, *i, next, end, why)
}

// begin decides anew what becomes of a VM whose turn it is, and begins with it.
func (p *drainPass) begin(ctx context.Context, i *drain.Item) error {
	v, err := p.VM(ctx, i.VM.String())
	switch {
	case errs.Is(err, errs.NotFound):
		return p.end(ctx, i, drain.Done, "it was deleted")
	case err != nil:
		return err
	case v.Job != nil && !v.Job.Attention, v.Node != nil && !v.Node.Reporting:
		return p.waits(ctx, i, vm.Appear(v).Reason, v)
	}
	will := p.decide(v, *i)
	if will.Action == drain.Block {
		return p.end(ctx, i, drain.Failed, will.Why)
	}
	if will.Action == drain.Leave {
		return p.end(ctx, i, drain.Done, will.Why)
	}
	p.views[i.VM] = v
	return p.carryOn(ctx, i, will, will.First(v.Rests()), drain.Running, will.Why)
}

// decide is what the plan decides, by what is so now.
func (p *drainPass) decide(v vm.View, i drain.Item) drain.Item {
	if err := v.Intent.Unusable(); err != nil {
		i.Action, i.Why = drain.Block, errs.As(err).Message
		return i
	}
	there := v.Intent.NodeID != nil && *v.Intent.NodeID == p.d.Node.Node
	if i.Action == drain.Start && there && v.Rests() {
		return i
	}
	if i.Action == drain.Start || there == (p.d.Kind == drain.Refill) || v.Intent.NodeID == nil {
		i.Action, i.Why = drain.Leave, "somebody did so meanwhile"
		return i
	}
	if p.d.Kind == drain.Refill {
		from := drain.Item{Action: drain.Cold, Target: migration.Place{Node: *v.Intent.NodeID}}
		return drain.DecideRefill(drain.Taken{Item: from, VM: v}, p.room(i.VM), p.d.Node, p.d.Policy)
	}
	return drain.Decide(v, p.room(i.VM), p.d.Policy.Or(v.Intent.Policy.Drain), "")
}

// waits keeps in the record why a VM's turn does not come yet.
func (p *drainPass) waits(ctx context.Context, i *drain.Item, why string, v vm.View) error {
	if v.Job != nil {
		why = fmt.Sprintf("job %s (%s) holds it", v.Job.ID, v.Job.Kind)
	}
	return p.note(ctx, i, why)
}

func (p *drainPass) note(ctx context.Context, i *drain.Item, why string) error {
	if i.Why == why {
		return nil
	}
	now := *i
	now.Why = why
	return p.put(ctx, i, now)
}

// carryOn begins the next stage of a VM, or ends it. A stage that cannot begin is one
// that failed; one that cannot begin yet is tried again.
func (p *drainPass) carryOn(ctx context.Context, was *drain.Item, will drain.Item, next drain.Stage, end drain.State, why string) error {
	for next != "" {
		now := will
		err := p.write(ctx, func(tx *store.Tx) error {
			now = will
			now.Why = why
			return p.stage(ctx, tx, *was, &now, next)
		})
		switch errs.CodeOf(err) {
		case "":
			*was, p.changed = now, true
			return p.look(ctx)
		case errs.VMBusy, errs.RecoveryHold, errs.Conflict, errs.NodeUnreachable:
			return p.note(ctx, was, errs.As(err).Message)
		case errs.InvalidState, errs.NoNodeFits, errs.NotFound, errs.NodeRemoved, errs.Unsupported, errs.NoSpace:
			if next == drain.Restoring {
				why += "; and it is not started again where it is: " + errs.As(err).Message
			} else {
				why = fmt.Sprintf("%s: %s", next, errs.As(err).Message)
			}
			next, end = will.After(next, false)
		default:
			return err
		}
	}
	return p.end(ctx, was, end, why)
}

// stage begins one stage of a VM: a job as anybody would ask for it.
func (p *drainPass) stage(ctx context.Context, tx *store.Tx, was drain.Item, i *drain.Item, next drain.Stage) error {
	is, err := tx.DrainItemIs(ctx, p.d.ID, was)
	if err == nil && !is {
		err = errs.New(errs.Conflict, "VM %q is being worked on elsewhere", i.Name)
	}
	if err != nil {
		return err
	}
	v, err := tx.VMGet(ctx, p.cfg.Project, i.VM.String())
	if err != nil {
		return err
	}
	p.judge(&v)
	var a Accepted
	switch next {
	case drain.Stopping:
		a, err = p.ask(ctx, tx, p.who(), v, vm.Stop, Stop{Grace: p.d.Grace})
	case drain.Starting, drain.Restoring:
		a, err = p.ask(ctx, tx, p.who(), v, vm.Start, Stop{})
	case drain.Moving:
		a, err = p.move(ctx, tx, v, i)
	}
	if err != nil {
		return err
	}
	i.State, i.Stage, i.Job, i.JobState = drain.Running, next, a.Job, ""
	return tx.DrainItemPut(ctx, p.d.ID, *i)
}

// move begins the migration of a VM. One that was stopped may go elsewhere by now.
func (p *drainPass) move(ctx context.Context, tx *store.Tx, v vm.View, i *drain.Item) (Accepted, error) {
	if _, err := vm.Decide(v, vm.Migrate); err != nil {
		return Accepted{}, err
	}
	nodes, to := p.room(i.VM), ""
	if p.d.Kind == drain.Refill {
		to = p.d.Node.Name
	}
	if i.Action == drain.Cold {
		placed := i.Place(v, nodes, to)
		if placed.Action == drain.Block {
			return Accepted{}, errs.New(errs.NoNodeFits, "%s", placed.Why)
		}
		i.Target = placed.Target
	}
	plan, err := migration.PlanOf(v, nodes, i.Target.Name)
	if err == nil {
		err = plan.Fits()
	}
	if err != nil {
		return Accepted{}, err
	}
	reason := p.d.Reason
	if reason == "" {
		reason = string(p.d.Kind) + " of node " + p.d.Node.Name
	}
	return p.migrate(ctx, tx, p.who(), v, plan, migration.Request{Node: i.Target.Name, Reason: reason})
}

// who asks is whoever asked for the drain.
func (p *drainPass) who() Caller {
	c := Caller{RequestID: p.d.RequestID}
	c.Name, c.Role = p.d.CreatedBy, "drain"
	return c
}

func (p *drainPass) end(ctx context.Context, i *drain.Item, as drain.State, why string) error {
	now := *i
	now.State, now.Stage, now.Why = as, "", why
	return p.put(ctx, i, now)
}

func (p *drainPass) put(ctx context.Context, i *drain.Item, now drain.Item) error {
	err := p.write(ctx, func(tx *store.Tx) error {
		is, err := tx.DrainItemIs(ctx, p.d.ID, *i)
		if err != nil || !is {
			return err
		}
		return tx.DrainItemPut(ctx, p.d.ID, now)
	})
	if err == nil {
		*i = now
	}
	return err
}
