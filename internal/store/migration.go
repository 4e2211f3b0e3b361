package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

var migrationList = lister{
	columns: `m.id, m.project_id, m.vm_id, m.vm_name, m.kind::text, m.state::text, m.reason, m.source_node_id, s.name, m.target_node_id, t.name,
  m.source_epoch, coalesce(m.swapped_epoch, 0), m.held_disk_bytes, m.held_cpus, m.held_memory_bytes, m.bytes_moved, m.prediction, m.phases,
  m.options, m.progress, coalesce(m.downtime_ms, 0), coalesce(m.downtime_seen_ms, 0), m.priority, m.begun_at, m.cutover_at,
  m.steps, m.relayed, m.share_bytes_per_second, coalesce(j.wait_reason, ''), coalesce(m.failure_code, ''), coalesce(m.failure_message, ''), m.created_by, m.created_at, m.finished_at, m.revision`,
	from: `migrations m JOIN nodes s ON s.id = m.source_node_id JOIN nodes t ON t.id = m.target_node_id
  LEFT JOIN jobs j ON j.id = m.id AND j.finished_at IS NULL`,
	filters: map[string]filter{
		"vm": named("m.vm_name"), "state": oneOf("m.state::text", "state", migrationStates()...),
		"source": anyOf("s.name"), "target": anyOf("t.name"),
	},
	sorts:       map[string]sortKey{"created_at": byID("m.id")},
	defaultSort: "-created_at",
	idColumn:    "m.id",
}

func migrationStates() (out []string) {
	for _, s := range migration.States() {
		out = append(out, string(s))
	}
	return out
}

func scanMigration(rows pgx.Rows) (migration.Migration, Next, error) {
	var m migration.Migration
	var next Next
	var docs migrationDocs
	var code, message string
	var downtime, seen int64
	err := rows.Scan(&next.Key, &m.ID, &m.ProjectID, &m.VM, &m.VMName, &m.Kind, &m.State, &m.Reason, &m.Source.Node, &m.Source.Name, &m.Target.Node, &m.Target.Name,
		&m.SourceEpoch, &m.SwappedEpoch, &m.HeldDiskBytes, &m.HeldCPUs, &m.HeldMemoryBytes, &m.BytesMoved, &docs.prediction, &docs.phases,
		&docs.options, &docs.progress, &downtime, &seen, &m.Priority, &m.BegunAt, &m.CutoverAt, &docs.steps, &m.Relayed, &m.Share, &m.Waits, &code, &message, &m.CreatedBy, &m.CreatedAt, &m.FinishedAt, &m.Revision)
	if err != nil {
		return m, next, err
	}
	next.ID = m.ID
	if code != "" {
		m.Failure = errs.New(errs.Code(code), "%s", message)
	}
	m.Downtime = migration.Downtime{Hypervisor: milliseconds(downtime), Seen: milliseconds(seen)}
	if err := docs.read(&m); err != nil {
		return m, next, errs.New(errs.Internal, "the record of migration %s is damaged", m.ID).Because(err)
	}
	return m, next, nil
}

// MigrationList gives a page of a project's migrations, newest first.
func (s *Store) MigrationList(ctx context.Context, project id.ID, p Page) ([]migration.Migration, *Next, error) {
	l := migrationList
	l.where = []string{"m.project_id = $1"}
	return listRows(ctx, s.pool, l, p, scanMigration, project)
}

// MigrationGet finds one of a project's by its id.
func (s *Store) MigrationGet(ctx context.Context, project, m id.ID) (migration.Migration, error) {
	l := migrationList
	l.where = []string{"m.project_id = $1", "m.id = $2"}
	found, _, err := listRows(ctx, s.pool, l, Page{Limit: 1}, scanMigration, project, m)
	if err == nil && len(found) == 0 {
		err = NotFound("migration", m.String())
	}
	if err != nil {
		return migration.Migration{}, err
	}
	return found[0], nil
}

// MigrationsOf lists the VMs that are on their way from a node or to it: it has, or may
// have, a copy of each.
func (s *Store) MigrationsOf(ctx context.Context, node id.ID) ([]id.ID, error) {
	ids, err := s.q.MigrationsOf(ctx, node)
	return ids, pgtx.Map(err)
}

// MigrationInsert records a migration that begins, and counts what its copy takes of the
// target. False when that has no room any more, or takes no VMs.
func (t *Tx) MigrationInsert(ctx context.Context, m migration.Migration) (bool, error) {
	if lacks, err := t.lacksPools(ctx, m.VM, true, m.Target.Node); err != nil || lacks {
		return false, err
	}
	fits, err := t.q.NodeReserve(ctx, query.NodeReserveParams{
		ID: m.Target.Node, DiskBytes: m.HeldDiskBytes, Cpus: int32(m.HeldCPUs), MemoryBytes: m.HeldMemoryBytes, NewVm: true,
	})
	if err != nil || fits == 0 {
		return false, pgtx.Map(err)
	}
	predicted, err := encode(predictionDocOf(m.Predicted))
	if err != nil {
		return false, err
	}
	asked := optionsDocOf(m.Options)
	kind := query.MigrationKind(m.Kind)
	if m.Kind == migration.Warm { // see migration 00038
		asked.Warm, kind = true, query.MigrationKindLive
	}
	options, err := encode(asked)
	if err != nil {
		return false, err
	}
	err = t.q.MigrationInsert(ctx, query.MigrationInsertParams{
		ID: m.ID, ProjectID: m.ProjectID, VmID: m.VM, VmName: m.VMName, Kind: kind, Reason: m.Reason,
		SourceNodeID: m.Source.Node, TargetNodeID: m.Target.Node, SourceEpoch: int64(m.SourceEpoch), HeldDiskBytes: m.HeldDiskBytes,
		HeldCpus: int32(m.HeldCPUs), HeldMemoryBytes: m.HeldMemoryBytes, Options: options, Priority: int16(m.Priority),
		Prediction: predicted, CreatedBy: m.CreatedBy, CutoverAt: m.CutoverAt,
	})
	if err != nil {
		return false, pgtx.Map(err)
	}
	return true, t.migrationEvent(ctx, m.ID, m.ProjectID, m.VMName)
}

func (t *Tx) migrationEvent(ctx context.Context, m, project id.ID, name string) error {
	return t.EventInsert(ctx, Event{ProjectID: &project, Kind: "migration.updated", ObjectKind: "migration", ObjectID: m, ObjectName: name, JobID: &m})
}

// MigrationEnds tells between which nodes a VM moves, what of it is the source's, and
// under which epoch it is the target's, if it is.
func (t *Tx) MigrationEnds(ctx context.Context, m id.ID) (migration.Migration, error) {
	row, err := t.q.MigrationEnds(ctx, m)
	if err != nil {
		return migration.Migration{}, one(err, "migration", m.String())
	}
	return migration.Migration{
		ID: m, VM: row.VmID, State: migration.State(row.State), Source: migration.Place{Node: row.SourceNodeID}, Target: migration.Place{Node: row.TargetNodeID},
		SourceEpoch: gen.OwnerEpoch(row.SourceEpoch), SwappedEpoch: gen.OwnerEpoch(row.SwappedEpoch), Closed: row.Closed,
	}, nil
}

// VMKeepOwner has everybody who would change a VM's owner wait for the end of the
// transaction: what is read from here on agrees. Nothing for one that is gone.
func (t *Tx) VMKeepOwner(ctx context.Context, v id.ID) error {
	return pgtx.Map(t.q.VMKeepOwner(ctx, v))
}

// MigrationClose has a migration's target not be given the VM any more: whoever is about to
// do so is waited for, and who asks later is refused.
func (t *Tx) MigrationClose(ctx context.Context, m migration.Migration) error {
	if err := t.VMKeepOwner(ctx, m.VM); err != nil {
		return err
	}
	return pgtx.Map(t.q.MigrationClose(ctx, m.ID))
}

// Swap is a change of a VM's owner.
type Swap struct {
	// Migration is what it is part of, and the job that holds the VM.
	Migration id.ID
	From, To  id.ID
	// Epoch is the owner epoch that From has.
	Epoch gen.OwnerEpoch
	// Back: does the VM return to where it was?
	Back bool
}

// VMSwap gives a VM, which is as it was read, to another node, under the epoch that it
// returns. What its migration holds is on the other one from then on. errs.StaleEpoch
// when From does not own it under that epoch, errs.NodeRemoved when it was removed.
func (t *Tx) VMSwap(ctx context.Context, v vm.View, s Swap) (gen.OwnerEpoch, error) {
	// locked as a removal of the node locks it: one of the two comes first
	to, err := t.q.NodeLock(ctx, s.To)
	if err != nil {
		return 0, one(err, "node", s.To.String())
	}
	if to.State == query.NodeStateRemoved {
		return 0, errs.New(errs.NodeRemoved, "the node that VM %q was to move to was removed", v.Intent.Name)
	}
	epoch, err := t.q.VMSwap(ctx, query.VMSwapParams{ID: v.Intent.ID, FromNode: &s.From, ToNode: &s.To, Epoch: int64(s.Epoch), JobID: &s.Migration})
	if errors.Is(err, pgx.ErrNoRows) {
		if why := v.Intent.Unusable(); why != nil {
			return 0, why
		}
		return 0, errs.New(errs.StaleEpoch, "VM %q is not what was copied any more: its owner changed", v.Intent.Name)
	}
	if err != nil {
		return 0, pgtx.Map(err)
	}
	phase := migration.PhaseSwapped
	if s.Back {
		phase = migration.PhaseBack
	}
	err = t.q.MigrationSwap(ctx, query.MigrationSwapParams{ID: s.Migration, HeldNodeID: s.From, Back: s.Back, Epoch: epoch, Phase: phase})
	if err != nil {
		return 0, pgtx.Map(err)
	}
	if err := t.VMChanged(ctx, v.Intent, &s.Migration); err != nil {
		return 0, err
	}
	return gen.OwnerEpoch(epoch), t.migrationEvent(ctx, s.Migration, v.Intent.ProjectID, v.Intent.Name)
}

// VMRegain returns a VM, whose new node was removed by force, to the one it came from: as
// VMSwap back does. False when that is not how it was lost.
func (t *Tx) VMRegain(ctx context.Context, v vm.View, s Swap) (bool, error) {
	_, err := t.q.VMRegain(ctx, query.VMRegainParams{ID: v.Intent.ID, JobID: s.Migration, Source: s.To, Target: s.From, Phase: migration.PhaseBack})
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, pgtx.Map(err)
	}
	return true, t.VMChanged(ctx, v.Intent, &s.Migration)
}

// MigrationEnd ends a migration as its job ends, and gives back what it held. Twice is
// no error.
func (t *Tx) MigrationEnd(ctx context.Context, m migration.Migration, as job.State, failure *errs.Error) error {
	p := query.MigrationEndParams{ID: m.ID, State: query.MigrationStateFailed}
	switch as {
	case job.Succeeded:
		p.State = query.MigrationStateSucceeded
	case job.Cancelled:
		p.State = query.MigrationStateCancelled
	default:
		if failure != nil {
			code := string(failure.Code)
			p.FailureCode, p.FailureMessage = &code, &failure.Message
		}
	}
	held, err := t.q.MigrationEnd(ctx, p)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return pgtx.Map(err)
	}
	if held.HeldNodeID != nil {
		if err := t.q.NodeRelease(ctx, query.NodeReleaseParams{
			ID: *held.HeldNodeID, DiskBytes: held.HeldDiskBytes, Cpus: held.HeldCpus, MemoryBytes: held.HeldMemoryBytes,
		}); err != nil {
			return pgtx.Map(err)
		}
	}
	return t.migrationEvent(ctx, m.ID, m.ProjectID, m.VMName)
}
