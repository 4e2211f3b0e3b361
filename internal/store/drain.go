package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/drain"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// DrainInsert records a drain of a node, or a return, that begins with its VMs.
func (t *Tx) DrainInsert(ctx context.Context, d drain.Drain) error {
	err := t.q.DrainInsert(ctx, query.DrainInsertParams{
		ID: d.ID, NodeID: d.Node.Node, Kind: string(d.Kind), Policy: string(d.Policy), Parallel: int32(d.Parallel),
		GraceMs: d.Grace.Milliseconds(), Partial: d.Partial, Reason: d.Reason, CreatedBy: d.CreatedBy, RequestID: d.RequestID,
	})
	if err != nil {
		return pgtx.Map(err)
	}
	for at, i := range d.Items {
		if err := t.DrainAdd(ctx, d.ID, at, i); err != nil {
			return err
		}
	}
	return nil
}

// DrainAdd puts a VM into a drain, unless it is in it.
func (t *Tx) DrainAdd(ctx context.Context, d id.ID, at int, i drain.Item) error {
	return pgtx.Map(t.q.DrainItemInsert(ctx, query.DrainItemInsertParams{
		DrainID: d, VmID: i.VM, VmName: i.Name, Position: int32(at), Action: string(i.Action), Runs: i.Runs, TargetNodeID: nodeOf(i.Target), State: string(i.State), Why: i.Why,
	}))
}

func nodeOf(p migration.Place) *id.ID {
	if p.Node == id.Nil {
		return nil
	}
	return &p.Node
}

// DrainRunning refuses, with errs.Conflict, while a node is being drained or gets back
// what was taken from it.
func (t *Tx) DrainRunning(ctx context.Context, node id.ID, name string) error {
	row, err := t.q.DrainRunning(ctx, node)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return pgtx.Map(err)
	}
	what := "is being drained"
	if drain.Kind(row.Kind) == drain.Refill {
		what = "gets back its VMs"
	}
	return errs.New(errs.Conflict, "node %q %s by job %s: wait for it, or cancel it", name, what, row.ID).HeldBy(row.ID.String())
}

// DrainGet gives one by its id.
func (s *Store) DrainGet(ctx context.Context, d id.ID) (drain.Drain, error) {
	row, err := s.q.DrainGet(ctx, d)
	if err != nil {
		return drain.Drain{}, one(err, "drain", d.String())
	}
	out := drain.Drain{
		ID: row.ID, Node: migration.Place{Node: row.NodeID, Name: row.NodeName}, Kind: drain.Kind(row.Kind), State: row.State,
		Request: drain.Request{
			Policy: vm.DrainPolicy(row.Policy), Parallel: int(row.Parallel), Grace: time.Duration(row.GraceMs) * time.Millisecond,
			Partial: row.Partial, Reason: row.Reason,
		},
		CreatedBy: row.CreatedBy, RequestID: row.RequestID, CreatedAt: row.CreatedAt, FinishedAt: row.FinishedAt,
	}
	items, err := s.q.DrainItems(ctx, d)
	for _, i := range items {
		out.Items = append(out.Items, drain.Item{
			VM: i.VmID, Name: i.VmName, Action: drain.Action(i.Action), Runs: i.Runs, Target: placeOf(i.TargetNodeID, i.TargetName), Why: i.Why,
			State: drain.State(i.State), Stage: drain.Stage(i.Stage), Job: i.JobID, JobState: job.State(i.JobState), JobError: i.JobError,
			StartedAt: i.StartedAt, FinishedAt: i.FinishedAt,
		})
	}
	return out, pgtx.Map(err)
}

func placeOf(node *id.ID, name string) migration.Place {
	if node == nil {
		return migration.Place{}
	}
	return migration.Place{Node: *node, Name: name}
}

// DrainLast gives the newest of a node.
func (s *Store) DrainLast(ctx context.Context, node id.ID, name string) (drain.Drain, error) {
	last, err := s.q.DrainLast(ctx, node)
	if err != nil {
		return drain.Drain{}, one(err, "drain of node", name)
	}
	return s.DrainGet(ctx, last)
}

// DrainTook lists what drains took from a node since it was last given back what they
// had.
func (s *Store) DrainTook(ctx context.Context, node id.ID) ([]drain.Item, error) {
	rows, err := s.q.DrainTook(ctx, node)
	var out []drain.Item
	for _, r := range rows {
		out = append(out, drain.Item{VM: r.VmID, Name: r.VmName, Action: drain.Action(r.Action), Runs: r.Runs, Target: placeOf(r.TargetNodeID, "")})
	}
	return out, pgtx.Map(err)
}

// DrainItemIs locks a VM's place in a drain, and tells whether it is still as it was
// read, in a drain that goes on.
func (t *Tx) DrainItemIs(ctx context.Context, d id.ID, as drain.Item) (bool, error) {
	row, err := t.q.DrainItemLock(ctx, query.DrainItemLockParams{DrainID: d, VmID: as.VM})
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return drain.State(row.State) == as.State && drain.Stage(row.Stage) == as.Stage, pgtx.Map(err)
}

// DrainItemPut records how far a VM is.
func (t *Tx) DrainItemPut(ctx context.Context, d id.ID, i drain.Item) error {
	return pgtx.Map(t.q.DrainItemPut(ctx, query.DrainItemPutParams{
		DrainID: d, VmID: i.VM, State: string(i.State), Stage: string(i.Stage), JobID: i.Job, Action: string(i.Action), Runs: i.Runs,
		TargetNodeID: nodeOf(i.Target), Why: i.Why,
	}))
}

// DrainEnd ends a drain as its job ends: what did not begin does not any more. Twice is
// no error.
func (t *Tx) DrainEnd(ctx context.Context, d id.ID, as job.State) error {
	err := t.q.DrainLeave(ctx, query.DrainLeaveParams{DrainID: d, Why: "the drain ended before its turn"})
	if err == nil {
		err = t.q.DrainEnd(ctx, query.DrainEndParams{ID: d, State: string(as)})
	}
	return pgtx.Map(err)
}
