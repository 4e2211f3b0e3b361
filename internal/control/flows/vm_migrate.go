package flows

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// MigrateParams are the parameters of vm.migrate. The migration has the job's id.
type MigrateParams struct {
	Source id.ID          `json:"source"`
	Target id.ID          `json:"target"`
	Epoch  gen.OwnerEpoch `json:"owner_epoch"`
	// Volumes are the VM's disks that move, which those in a storage pool do not: its row may
	// be gone before what is left of them is.
	Volumes []id.ID `json:"volumes"`
	// Paused: was the guest halted when the move was asked for?
	Paused bool `json:"paused,omitempty"`
}

// VMMigrate moves a VM without a process to another node: its disks, its seed, what its
// firmware keeps, its saved memory. The target was chosen, and its space counted, when
// the request was accepted.
//
// Until its swap it unwinds to a VM that is where it was, and from then on, while the
// source has everything, by swapping back. From the removal of the source's copy on it
// only goes forward, and the VM is free for the next request: a source that is away keeps
// the job waiting, not the VM. So does a target that is away when its copy is to go: a
// migration that failed leaves the VM as it was.
func VMMigrate() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobMigrate,
		Steps: []workflow.Step[Env]{
			{Name: "find nodes", Do: findBoth, InDatabase: true, Cancellable: true},
			{Name: "wait for its turn", Do: waitTurn, InDatabase: true, Cancellable: true},
			{Name: "fetch images", Do: fetchThere, Cancellable: true},
			// its undo removes all that the target has of the VM
			{Name: "copy", Do: copyThere, Undo: eraseThere, Cancellable: true},
			{Name: "swap", Do: swapThere, Undo: swapBack, InDatabase: true},
			{Name: "take up", Do: takeUp},
			{Name: "clean up", Do: cleanUp, NoReturn: true},
		},
		Finish: finishMigrate,
	}
}

// moving is a step of a migration.
type moving struct {
	MigrateParams
	v              vm.View
	source, target node.Node
}

func moves(ctx context.Context, r *run) (moving, error) {
	m, err := unmoves(ctx, r)
	switch {
	case err != nil:
	case m.lostThere() && m.source.State != node.Removed:
		err = errs.New(errs.NodeRemoved, "VM %q had moved to node %s, which was removed by force: it is on node %s again, as it was when it left, and what ran has to be started", m.v.Intent.Name, m.v.Intent.Lost.Node, m.source.Name)
	default:
		err = m.v.Intent.Unusable()
	}
	return m, err
}

func (p MigrateParams) nodes(ctx context.Context, r *run) (source, target node.Node, err error) {
	source, err = nodeByID(ctx, r, p.Source)
	if err == nil {
		target, err = nodeByID(ctx, r, p.Target)
	}
	return source, target, err
}

// nodeByID gives a node; one that was removed has no name.
func nodeByID(ctx context.Context, r *run, n id.ID) (node.Node, error) {
	get := r.Env.Store.NodeGet
	if tx := r.Accepting(); tx != nil {
		get = store.On(tx).NodeSeen
	}
	found, err := get(ctx, n.String())
	if errs.Is(err, errs.NotFound) {
		return node.Node{ID: n, State: node.Removed}, nil
	}
	found.Reporting = r.Env.Candidates.Reporting(n)
	return found, err
}

// on is the VM as if it were on a node: what is sent by it goes there.
func (m moving) on(n node.Node) vm.View {
	v := m.v
	v.Intent.NodeID = &n.ID
	v.Node = &vm.NodeView{ID: n.ID, Name: n.Name, Reporting: n.Reporting}
	return v
}

// findBoth waits until both nodes report: what is begun on one that is away is a guess.
func findBoth(ctx context.Context, r *run) (any, error) {
	m, err := moves(ctx, r)
	if err != nil {
		return nil, err
	}
	if m.target.State == node.Removed {
		return nil, errs.New(errs.NodeRemoved, "the node that VM %q was to move to was removed", m.v.Intent.Name)
	}
	for _, n := range []node.Node{m.source, m.target} {
		if !n.Reporting {
			return nil, workflow.Wait("node "+n.Name+" does not report: the VM moves when it returns", lookForNode)
		}
	}
	return nil, nil
}

func fetchThere(ctx context.Context, r *run) (any, error) {
	m, err := moves(ctx, r)
	if err != nil {
		return nil, err
	}
	return nil, fetch(ctx, r, m.on(m.target), imagesMoved(m.v), r.Step)
}

// copied is the output of "copy".
type copied struct {
	Bytes int64 `json:"bytes"`
}

// copyThere has the source offer what it has, and the target take it.
func copyThere(ctx context.Context, r *run) (any, error) {
	m, err := moves(ctx, r)
	if err != nil {
		return nil, err
	}
	set, err := setOut(ctx, r, m)
	if err != nil {
		return nil, err
	}
	bytes, err := copyItems(ctx, r, m, set, false)
	if err != nil {
		return nil, err
	}
	return copied{Bytes: bytes}, copying(ctx, r, bytes)
}

// setting is what a copy of a VM sets out with: the tickets of its ways, of what the source
// offers and of what it sends, and the share of the bandwidth.
type setting struct {
	offer, send string
	pacer
}

// setOut notes that the copying has begun, in one transaction with all that it begins with.
func setOut(ctx context.Context, r *run, m moving) (setting, error) {
	out := setting{offer: rand.Text(), send: rand.Text()}
	err := write(ctx, r, func(tx *store.Tx) error {
		err := tx.MigrationPhase(ctx, r.Job.ID, migration.PhaseCopying, 0)
		if err == nil {
			err = tx.RelayGrant(ctx, out.offer, m.Target, m.Source, r.Job.ID)
		}
		if err == nil {
			err = tx.RelayGrant(ctx, out.send, m.Source, m.Target, r.Job.ID)
		}
		if err == nil {
			out.has, err = shareIn(ctx, tx, r.Job.ID)
		}
		return err
	})
	return out, err
}

// copyItems has the source offer what it has of the VM, and the target take it. Live, that
// is all but what is on its disks.
func copyItems(ctx context.Context, r *run, m moving, set setting, live bool) (int64, error) {
	from, p := nodelink.ImageSource{Node: m.Source, Ticket: set.offer}, set.pacer
	offer := &nodelink.OfferVM{Header: head(r, m.v, m.Epoch, stepTimeout), To: m.Target, Ticket: from.Ticket, Volumes: m.Volumes, Live: live, BytesPerSecond: p.has}
	offer.Step = r.Step + ": offer " + from.Ticket // each is another one: no answer stands for the next
	var offered nodelink.ImageOffer
	switch err := call(ctx, r, m.on(m.source), offer, &offered); {
	case errs.Is(err, errs.Conflict):
		return 0, workflow.Wait("node "+m.source.Name+" gives to as many others as it can; the VM is copied when it is its turn", lookAgain)
	case err != nil:
		return 0, err
	}
	from.Address = offered.Address
	take := &nodelink.TakeVM{Header: head(r, m.v, m.Epoch, copyTime(m.v)), Source: from, Live: live}
	take.Step = r.Step + ": take " + from.Ticket
	for _, d := range m.v.Volumes {
		if d.PoolID != nil {
			continue // it stays where it is, for both
		}
		spec, err := volumeSpec(ctx, r, d)
		if err != nil {
			return 0, err
		}
		take.Volumes = append(take.Volumes, spec)
	}
	var took nodelink.TakeReply
	if !live {
		defer watchTransfer(ctx, r, m, p)()
	}
	err := call(ctx, r, m.on(m.target), take, &took)
	if err == nil && took.Relayed {
		err = relayed(ctx, r)
	}
	return took.Bytes, err
}

// copyTime bounds the copying of a VM: what it has at most, at the pace of the slowest
// disk, beside the patience that everything that is fetched has.
func copyTime(v vm.View) time.Duration {
	return fetchTimeout + time.Duration((v.DiskBytes()+v.Intent.MemoryBytes)/saveRate)*time.Second
}

// watchEvery is how often a transfer is looked at, for people.
const watchEvery = time.Second

// watchTransfer shows how far a transfer is, until it is stopped.
func watchTransfer(ctx context.Context, r *run, m moving, p pacer) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r.Env.Candidates.clock.Sleep(ctx, watchEvery) == nil {
			p.keep(ctx, r, m)
			var t nodelink.Transfer
			if r.Env.Nodes.Call(ctx, m.Target, &nodelink.AskTransfer{VM: m.v.Intent.ID}, &t) != nil {
				continue
			}
			if total := m.v.DiskBytes(); total > 0 {
				_ = r.Progress(ctx, int(min(99, 100*t.Bytes/total)))
			}
			_ = copying(ctx, r, t.Bytes)
			if t.Relayed {
				_ = relayed(ctx, r)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// copying notes that the copying has begun, and how many bytes it came to so far.
func copying(ctx context.Context, r *run, bytes int64) error {
	return write(ctx, r, func(tx *store.Tx) error { return tx.MigrationPhase(ctx, r.Job.ID, migration.PhaseCopying, bytes) })
}

// eraseThere removes the target's copy. Nobody waits for that: the VM, which is the
// source's, is let go first.
func eraseThere(ctx context.Context, r *run) error {
	var p MigrateParams
	if err := r.Params(&p); err != nil {
		return err
	}
	s, again, err := workflow.Output[swapped](r, "swap")
	if err == nil {
		err = letGoOf(ctx, r)
	}
	if err != nil {
		return err
	}
	epoch := p.Epoch
	if again {
		epoch = s.Epoch + 1 // that of the way back
	}
	return eraseAt(ctx, r, p.Target, epoch, p.Volumes)
}

func letGoOf(ctx context.Context, r *run) error {
	return write(ctx, r, func(tx *store.Tx) error {
		if err := tx.VMLetGo(ctx, vm.Intent{ID: r.Job.Target.ID}, r.Job.ID); err != nil {
			return err
		}
		return tx.MigrationPhase(ctx, r.Job.ID, migration.PhaseCleaning, 0)
	})
}

// unmoves is moves for what is taken back: a VM that was lost meanwhile is no hindrance.
func unmoves(ctx context.Context, r *run) (moving, error) {
	var m moving
	if err := r.Params(&m.MigrateParams); err != nil {
		return m, err
	}
	var err error
	if m.v, err = load(ctx, r); err != nil {
		return m, err
	}
	m.source, m.target, err = m.nodes(ctx, r)
	return m, err
}

// eraseAt removes what a node has of the VM, which is another's. A node that was removed
// has nothing, and one that has seen a later operation was given the VM again: that one
// has removed what was left.
func eraseAt(ctx context.Context, r *run, from id.ID, epoch gen.OwnerEpoch, volumes []id.ID) error {
	n, err := nodeByID(ctx, r, from)
	if err != nil || n.State == node.Removed {
		return err
	}
	if owns, err := ownsLater(ctx, r, n, epoch); err != nil || owns {
		return err
	}
	cmd := &nodelink.Erase{Header: head(r, vm.View{Intent: vm.Intent{ID: r.Job.Target.ID}}, epoch, stepTimeout), Volumes: volumes}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout+stepTimeout/2)
	defer cancel()
	err = r.Env.Nodes.Call(ctx, n.ID, cmd, nil)
	switch {
	case errs.Is(err, errs.StaleEpoch), errs.Is(err, errs.StaleAttempt) && ctx.Err() == nil:
		return nil
	case errs.Is(err, errs.NodeUnreachable):
		return errs.New(errs.NodeUnreachable, "node %s, which has a copy of the VM: %s", n.Name, errs.As(err).Message).Because(err)
	}
	return err
}

// ownsLater tells whether a node owns the VM under a later epoch than that of a removal:
// then there is nothing that may go. One that owns it under that epoch is an error:
// whatever led there, the VM would be lost.
func ownsLater(ctx context.Context, r *run, n node.Node, epoch gen.OwnerEpoch) (bool, error) {
	v, err := r.Env.Store.VMByID(ctx, r.Job.Target.ID)
	switch {
	case errs.Is(err, errs.NotFound):
		return false, nil
	case err != nil || v.Intent.NodeID == nil || *v.Intent.NodeID != n.ID:
		return false, err
	case v.Intent.Epoch > epoch:
		return true, nil
	}
	return false, errs.New(errs.Internal, "VM %q is node %s's, and would have been removed there", v.Intent.Name, n.Name)
}

// swapped is the output of "swap".
type swapped struct {
	Epoch gen.OwnerEpoch `json:"owner_epoch"`
}

// swapThere gives the VM to the target: from here on it is there.
func swapThere(ctx context.Context, r *run) (any, error) {
	m, err := moves(ctx, r)
	if err != nil {
		return nil, err
	}
	var out swapped
	err = write(ctx, r, func(tx *store.Tx) error {
		v, err := tx.VMByID(ctx, m.v.Intent.ID)
		if err == nil && v.Intent.NodeID != nil && *v.Intent.NodeID == m.Target && v.Intent.Epoch > m.Epoch {
			out.Epoch = v.Intent.Epoch // done before a crash
			return nil
		}
		if err != nil {
			return err
		}
		out.Epoch, err = tx.VMSwap(ctx, v, store.Swap{Migration: r.Job.ID, From: m.Source, To: m.Target, Epoch: m.Epoch})
		return err
	})
	return out, err
}

// swapBack returns the VM to the source, which still has everything, and sees it there.
func swapBack(ctx context.Context, r *run) error {
	m, err := unmoves(ctx, r)
	if err != nil {
		return err
	}
	back := m.back(r.Job.ID)
	err = write(ctx, r, func(tx *store.Tx) error {
		if m.v.Intent.Lost != nil { // with its new node, which was removed by force
			_, err := tx.VMRegain(ctx, m.v, back)
			return err
		}
		if on := m.v.Intent.NodeID; on == nil || *on != m.Target {
			return nil
		}
		_, err := tx.VMSwap(ctx, m.v, back)
		return err
	})
	if err == nil {
		m, err = unmoves(ctx, r)
	}
	if err != nil {
		return err
	}
	if m.v.Intent.Lost != nil || m.v.Intent.Epoch == m.Epoch {
		return nil
	}
	return seeAsIs(ctx, r)
}

// takeUp has the target say what it has.
func takeUp(ctx context.Context, r *run) (any, error) {
	v, err := usable(ctx, r)
	if err != nil {
		return nil, err
	}
	return observe(ctx, r, v, &nodelink.Look{Header: head(r, v, v.Intent.Epoch, stepTimeout)})
}

// cleanUp removes the source's copy. Nobody else waits for that: the VM is let go first.
func cleanUp(ctx context.Context, r *run) (any, error) {
	var p MigrateParams
	if err := r.Params(&p); err != nil {
		return nil, err
	}
	s, err := workflow.MustOutput[swapped](r, "swap")
	if err != nil {
		return nil, err
	}
	return cleanSource(ctx, r, p, s.Epoch)
}

// cleanSource is cleanUp of a VM that moved under an epoch.
func cleanSource(ctx context.Context, r *run, p MigrateParams, epoch gen.OwnerEpoch) (any, error) {
	err := write(ctx, r, func(tx *store.Tx) error {
		if err := tx.VMFree(ctx, r.Job.Target.ID, r.Job.ID, nil); err != nil {
			return err
		}
		return tx.MigrationPhase(ctx, r.Job.ID, migration.PhaseCleaning, 0)
	})
	if err != nil {
		return nil, err
	}
	err = eraseAt(ctx, r, p.Source, epoch, p.Volumes)
	if errs.Is(err, errs.NodeUnreachable) || errs.Is(err, errs.Timeout) {
		return nil, workflow.Wait("the VM has moved; what is left of it goes when its node can be reached, or is removed by force: "+errs.As(err).Message, lookForNode)
	}
	return nil, err
}

func finishMigrate(ctx context.Context, tx pgx.Tx, r *run, out workflow.Outcome) error {
	t := store.On(tx)
	m := migration.Migration{ID: r.Job.ID, ProjectID: *r.Job.ProjectID, VMName: r.Job.Target.Name}
	if err := t.MigrationEnd(ctx, m, out.State, out.Err); err != nil {
		return err
	}
	if err := nextTurn(ctx, tx); err != nil {
		return err
	}
	return t.VMLetGo(ctx, vm.Intent{ID: r.Job.Target.ID}, r.Job.ID)
}
