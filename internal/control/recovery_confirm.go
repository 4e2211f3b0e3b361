package control

import (
	"context"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/recovery"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Recovery is what is held, what differs, and what was left alone.
type Recovery struct {
	store.Recovery
	Plan recovery.Plan
	Left []store.LeftVM
}

// Recovery compares what is held with its nodes.
func (s *Service) Recovery(ctx context.Context) (Recovery, error) {
	r, err := s.cfg.Store.RecoveryGet(ctx)
	if err != nil {
		return Recovery{}, err
	}
	out := Recovery{Recovery: r}
	if out.Left, err = s.cfg.Store.RecoveryLeft(ctx); err != nil || !r.Held() {
		return out, err
	}
	snap, err := s.snapshot(ctx, r)
	if err != nil {
		return out, err
	}
	out.Plan = recovery.Compare(snap)
	return out, nil
}

// ConfirmRecovery carries out the plan that was shown, and ends the hold of
// whatever it settles: one transaction, so that it is done or not. Nodes that have
// not told what they hold stay held by themselves. adopt and leave decide about
// VMs that the database does not know; without a word they are adopted, unless
// they were left before. A plan that was carried out already is answered alike.
func (s *Service) ConfirmRecovery(ctx context.Context, c Caller, plan string, adopt, leave []id.ID) (Recovery, error) {
	r, err := s.cfg.Store.RecoveryGet(ctx)
	if err != nil {
		return Recovery{}, err
	}
	if done, err := confirmed(r, plan); done || err != nil {
		return s.confirmedOr(ctx, err)
	}
	snap, err := s.snapshot(ctx, r)
	if err != nil {
		return Recovery{}, err
	}
	shown := recovery.Compare(snap)
	if shown.ID != plan {
		return Recovery{}, errs.New(errs.RevisionMismatch, "what differs is not what was shown: it is plan %s now, not %s; look again, then confirm", shown.ID, errs.Clip(plan))
	}
	if err := mayChoose(shown, adopt, leave); err != nil {
		return Recovery{}, err
	}
	snap.Adopt, snap.Leave = setOf(adopt), setOf(leave)
	todo := recovery.Compare(snap)
	err = s.change(ctx, func(tx *store.Tx) error {
		now, err := tx.RecoveryLock(ctx)
		if err != nil {
			return err
		}
		if done, err := confirmed(now, plan); done || err != nil {
			return err
		}
		return s.recover(ctx, tx, c, plan, todo, now)
	})
	if err != nil {
		return Recovery{}, err
	}
	if err := s.holds.Refresh(ctx); err != nil {
		return Recovery{}, err
	}
	s.cfg.Committed()
	s.roomMade()
	return s.Recovery(ctx)
}

func (s *Service) confirmedOr(ctx context.Context, err error) (Recovery, error) {
	if err != nil {
		return Recovery{}, err
	}
	return s.Recovery(ctx)
}

// confirmed tells whether a plan was carried out already.
func confirmed(r store.Recovery, plan string) (bool, error) {
	switch {
	case r.Plan == plan && plan != "":
		return true, nil
	case !r.Held():
		return false, errs.New(errs.InvalidState, "nothing is in recovery hold: there is nothing to confirm")
	default:
		return false, nil
	}
}

// mayChoose refuses choices about what is none.
func mayChoose(p recovery.Plan, adopt, leave []id.ID) error {
	unknown := map[id.ID]recovery.VMPlan{}
	for _, v := range p.VMs {
		if v.Case == recovery.Unknown {
			unknown[v.VM] = v
		}
	}
	for field, ids := range map[string][]id.ID{"/adopt": adopt, "/leave": leave} {
		for _, v := range ids {
			u, ok := unknown[v]
			if !ok {
				return errs.New(errs.InvalidField, "VM %s is none that the database does not know", v).At(errs.Field{Pointer: field, Message: "is no unknown VM", Got: v.String()})
			}
			if field == "/adopt" && u.Why != "" {
				return errs.New(errs.InvalidField, "VM %s cannot be adopted: %s", v, u.Why).At(errs.Field{Pointer: field, Message: "cannot be adopted", Got: v.String()})
			}
		}
	}
	return nil
}

// recover writes a plan.
func (s *Service) recover(ctx context.Context, tx *store.Tx, c Caller, id string, p recovery.Plan, r store.Recovery) error {
	released, waiting := split(p)
	if err := tx.NodesLock(ctx, released); err != nil {
		return err
	}
	if err := s.settle(ctx, tx, c, p); err != nil {
		return err
	}
	if err := tx.NodesRecount(ctx, released); err != nil {
		return err
	}
	if r.Cause == "" {
		waiting = nil // they are held by themselves already
	}
	for _, n := range waiting {
		if _, err := tx.RecoveryHoldNode(ctx, n, store.CauseRestored, "it was away when what differs was confirmed"); err != nil {
			return err
		}
	}
	if err := tx.RecoveryConfirmed(ctx, id, c.Name, released); err != nil {
		return err
	}
	if _, err := workflow.Wake(ctx, tx, workflow.Filter{}); err != nil {
		return err
	}
	rec := c.record("recovery.confirm", "cluster", s.cfg.Cluster.ID, "")
	rec.Detail = map[string]any{"plan": id, "vms": decisions(p), "nodes_released": len(released), "nodes_held": len(waiting)}
	if err := tx.AuditInsert(ctx, rec); err != nil {
		return err
	}
	return tx.RecoveryChanged(ctx, s.cfg.Cluster.ID, map[string]any{"held": len(waiting) > 0, "plan": id})
}

// settle writes what becomes of jobs, images and VMs.
func (s *Service) settle(ctx context.Context, tx *store.Tx, c Caller, p recovery.Plan) error {
	if err := s.recoverJobs(ctx, tx, p); err != nil {
		return err
	}
	for _, i := range p.Images {
		i.ProjectID = s.cfg.Project
		if err := tx.ImageRecreate(ctx, i); err != nil {
			return err
		}
	}
	for _, v := range p.VMs {
		if err := s.recoverVM(ctx, tx, c, v); err != nil {
			return err
		}
	}
	return nil
}

// split parts the nodes that the plan releases from those that stay held.
func split(p recovery.Plan) (released, waiting []id.ID) {
	for _, n := range p.Nodes {
		if n.Release {
			released = append(released, n.ID)
		} else {
			waiting = append(waiting, n.ID)
		}
	}
	return released, waiting
}

// decisions are what the audit log tells of a plan.
func decisions(p recovery.Plan) []map[string]string {
	out := make([]map[string]string, 0, len(p.VMs))
	for _, v := range p.VMs {
		out = append(out, map[string]string{"id": v.VM.String(), "name": v.Name, "case": string(v.Case), "action": string(v.Action)})
	}
	return out
}

func (s *Service) recoverJobs(ctx context.Context, tx *store.Tx, p recovery.Plan) error {
	for _, j := range p.Jobs {
		if j.Action == recovery.GoOn {
			if err := workflow.RaiseFence(ctx, tx, j.ID, j.Attempt); err != nil {
				return err
			}
			continue
		}
		if err := workflow.Supersede(ctx, tx, j.ID, "recovery from an older database: "+j.Why); err != nil {
			return err
		}
		if err := tx.VMLetGoOf(ctx, j.ID); err != nil {
			return err
		}
		m := migration.Migration{ID: j.ID, ProjectID: s.cfg.Project}
		if err := tx.MigrationEnd(ctx, m, job.Cancelled, nil); err != nil {
			return err
		}
	}
	return nil
}

// lostSince words why a VM is lost.
const lostSince = "its node did not have it any more when the database was put back from a backup"

func (s *Service) recoverVM(ctx context.Context, tx *store.Tx, c Caller, v recovery.VMPlan) error {
	switch v.Action {
	case recovery.Adopt:
		if err := tx.RecoveryForget(ctx, v.VM); err != nil {
			return err
		}
		if v.Case == recovery.Unknown {
			return tx.VMRecreate(ctx, s.cfg.Project, v)
		}
		return tx.VMAdopt(ctx, s.cfg.Project, v)
	case recovery.Lose:
		return tx.VMMiss(ctx, s.cfg.Project, v, lostSince)
	default:
		return tx.RecoveryLeave(ctx, v, c.Name)
	}
}
