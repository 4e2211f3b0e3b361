package control

import (
	"context"

	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Migrations gives a page of migrations, newest first.
func (s *Service) Migrations(ctx context.Context, p store.Page) ([]migration.Migration, *store.Next, error) {
	return s.cfg.Store.MigrationList(ctx, s.cfg.Project, p)
}

// Migration gives one migration.
func (s *Service) Migration(ctx context.Context, m id.ID) (migration.Migration, error) {
	return s.cfg.Store.MigrationGet(ctx, s.cfg.Project, m)
}

// PlanMigration says where a VM would go, and what that takes. It changes nothing.
func (s *Service) PlanMigration(ctx context.Context, c Caller, ref string, r migration.Request) (migration.Plan, error) {
	nodes, err := s.forMigration(ctx, &r)
	if err != nil {
		return migration.Plan{}, err
	}
	v, err := s.VM(ctx, ref)
	if err == nil {
		err = c.believes(v)
	}
	if err == nil {
		_, err = vm.Decide(v, vm.Migrate)
	}
	if err != nil {
		return migration.Plan{}, err
	}
	changes := s.sample(ctx, v, r, 0)
	if !changes.Known() {
		rate, err := s.cfg.Store.MigrationDirtyRate(ctx, v.Intent.ID)
		if err != nil {
			return migration.Plan{}, err
		}
		changes = migration.ChangedWhenMoved(rate)
	}
	plan, err := migration.PlanFor(v, nodes, r, changes)
	if err == nil {
		plan = s.reach(ctx, plan)
	}
	return plan, err
}

// MigrateVM moves a VM to another node: it decides under the row's lock where to, counts
// there what the copy takes, and enqueues the job.
func (s *Service) MigrateVM(ctx context.Context, c Caller, ref string, r migration.Request) (Accepted, error) {
	// before the transaction: placement needs no more than what was true a moment ago
	nodes, err := s.forMigration(ctx, &r)
	if err != nil {
		return Accepted{}, err
	}
	seen, sampled := s.sampleOf(ctx, ref, r)
	return s.once(ctx, c, func(tx *store.Tx) (Accepted, error) {
		v, err := s.decided(ctx, tx, c, ref, vm.Migrate)
		if err != nil {
			return Accepted{}, err
		}
		changes, err := changesOf(ctx, tx, v, seen, sampled)
		if err != nil {
			return Accepted{}, err
		}
		plan, err := migration.PlanFor(v, nodes, r, changes)
		if err == nil {
			err = plan.Fits()
		}
		if err != nil {
			return Accepted{}, err
		}
		return s.migrate(ctx, tx, c, v, plan, r)
	})
}

// forMigration checks what can be told before a transaction, and reads the nodes.
func (s *Service) forMigration(ctx context.Context, r *migration.Request) ([]node.Node, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	if r.Node != "" {
		n, err := s.cfg.Store.NodeGet(ctx, r.Node)
		if err != nil {
			return nil, err
		}
		r.Node = n.Name
	}
	return s.everyNode(ctx)
}

// migrate begins a planned migration, to the first node that still has room.
func (s *Service) migrate(ctx context.Context, tx *store.Tx, c Caller, v vm.View, plan migration.Plan, r migration.Request) (Accepted, error) {
	job := id.New()
	opSeq, err := tx.VMHold(ctx, v.Intent, job)
	if err != nil {
		return Accepted{}, err
	}
	m := migration.Migration{
		ID: job, ProjectID: v.Intent.ProjectID, VM: v.Intent.ID, VMName: v.Intent.Name, Kind: plan.Kind, Reason: r.Reason,
		Source: plan.Source, SourceEpoch: v.Intent.Epoch, HeldDiskBytes: v.DiskBytes(), Predicted: plan.Prediction, Options: plan.Options, Priority: r.Priority, CreatedBy: c.Name,
	}
	if at := plan.Options.CutoverAt; !at.IsZero() {
		m.CutoverAt = &at
	}
	if plan.Kind.Executing() {
		m.HeldCPUs, m.HeldMemoryBytes = v.Intent.CPUs, v.Intent.MemoryBytes
	}
	fits := false
	for _, n := range plan.Ranked {
		m.Target = migration.Place{Node: n.Node, Name: n.Name}
		if fits, err = tx.MigrationInsert(ctx, m); fits || err != nil {
			break
		}
	}
	if err == nil && !fits {
		err = errs.New(errs.NoNodeFits, "no node fits: every node that did was taken meanwhile; ask again")
	}
	if err != nil {
		return Accepted{}, err
	}
	kind, params := migrationJob(v, m, plan)
	_, err = s.beginWith(ctx, tx, c, v, workflow.NewJob{ID: job, Kind: kind, OpSeq: opSeq, Cancellable: true, Params: params},
		map[string]any{"kind": m.Kind, "source": m.Source.Name, "target": m.Target.Name, "reason": m.Reason})
	return Accepted{Job: &job, Object: v.Intent.ID}, err
}

// migrationJob is what carries a migration out.
func migrationJob(v vm.View, m migration.Migration, plan migration.Plan) (kind string, params any) {
	p := flows.MigrateParams{Source: m.Source.Node, Target: m.Target.Node, Epoch: m.SourceEpoch}
	p.Paused = v.Observed != nil && v.Observed.Phase == vm.PhasePaused
	for _, d := range v.Volumes {
		if d.PoolID == nil {
			p.Volumes = append(p.Volumes, d.ID)
		}
	}
	live := flows.MigrateLiveParams{MigrateParams: p, Options: plan.Options, Timeout: plan.Options.Timeout}
	switch plan.Kind {
	case migration.Live:
		return vm.JobMigrateLive, live
	case migration.Warm:
		return vm.JobMigrateWarm, live
	case migration.Cold:
	}
	return vm.JobMigrate, p
}
