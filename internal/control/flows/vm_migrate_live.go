package flows

import (
	"context"
	"crypto/rand"
	"time"

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

// VMMigrateLive moves a VM that runs, or is paused, to another node, with its memory and
// its disks. The target was chosen, and what it takes counted, when the request was
// accepted.
//
// The flow prepares and watches. Whose the VM is the two nodes settle: the target asks for
// the swap itself, as package agent tells, so that nobody's absence keeps a halted guest
// waiting. What the flow does about that is to bring each node the other's word.
//
// Until the swap it unwinds to a VM that goes on where it was. One that was swapped is
// never taken back: the job ends as it was told to, and the VM is where it went.
func VMMigrateLive() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobMigrateLive,
		Steps: []workflow.Step[Env]{
			{Name: "find nodes", Do: findBoth, InDatabase: true, Cancellable: true},
			{Name: "wait for its turn", Do: waitTurn, InDatabase: true, Cancellable: true},
			{Name: "fetch images", Do: fetchThere, Cancellable: true},
			// its undo settles whose the VM is, and removes what the other node has of it
			{Name: "move", Do: moveLive, Undo: unmoveLive, Cancellable: true},
			{Name: "clean up", Do: cleanUpLive, NoReturn: true},
		},
		Finish: finishMigrate,
	}
}

// moveLive moves the VM, once what an earlier attempt left is settled.
func moveLive(ctx context.Context, r *run) (any, error) {
	var p MigrateLiveParams
	if err := r.Params(&p); err != nil {
		return nil, err
	}
	m, err := moves(ctx, r)
	if err != nil {
		return nil, err
	}
	if hasBegun(r) {
		out, err := settleLive(ctx, r, m)
		if err != nil || out.Epoch > 0 {
			return out, err
		}
		m.v, err = usable(ctx, r)
		if err != nil {
			return nil, err
		}
	}
	if m.v.Intent.Epoch != m.Epoch {
		return nil, gaveUp(m)
	}
	send, pace, err := meet(ctx, r, m, p.Options)
	if err != nil {
		return nil, err
	}
	return sendLive(ctx, r, m, p, send, pace)
}

// began is what a move leaves for itself, should it be tried again by who has tried it.
type began struct{}

// hasBegun tells whether the nodes may know of the move, and notes that they are about to.
// Nobody has told them before the first attempt of the job.
func hasBegun(r *run) bool {
	_, again := r.Kept().(began)
	r.Keep(began{})
	return again || r.Attempt > workflow.FirstAttempt
}

// meet has the target take what does not move by itself, the source depart and the target
// receive, and gives the command that sends.
func meet(ctx context.Context, r *run, m moving, o migration.Options) (*nodelink.SendVM, pacer, error) {
	set, err := setOut(ctx, r, m)
	if err != nil {
		return nil, set.pacer, err
	}
	if _, err := copyItems(ctx, r, m, set, true); err != nil {
		return nil, set.pacer, err
	}
	send, err := prepare(ctx, r, m, o, set.send)
	return send, set.pacer, err
}

// prepare has the source depart and the target receive.
func prepare(ctx context.Context, r *run, m moving, o migration.Options, ticket string) (*nodelink.SendVM, error) {
	way := rand.Text()
	depart := &nodelink.DepartVM{Header: head(r, m.v, m.Epoch, stepTimeout), Options: wireOptions(o)}
	depart.Step = r.Step + ": depart " + way // each is another one: no answer stands for the next
	var departed nodelink.Departed
	if err := call(ctx, r, m.on(m.source), depart, &departed); err != nil {
		return nil, err
	}
	receive := &nodelink.ReceiveVM{Header: head(r, m.v, m.Epoch, launchTimeout), From: m.Source, Ticket: ticket, Departure: departed.Departure}
	receive.Step = r.Step + ": receive " + way
	var err error
	if receive.Machine, err = machineOf(ctx, r, m.v); err != nil {
		return nil, err
	}
	var received nodelink.Received
	if err := call(ctx, r, m.on(m.target), receive, &received); err != nil {
		return nil, err
	}
	send := &nodelink.SendVM{
		Header: head(r, m.v, m.Epoch, 0), To: m.Target, Address: received.Address, Ticket: receive.Ticket, Landing: received.Landing, Bare: received.Bare,
	}
	send.Step = r.Step + ": send " + way
	send.Stall = &nodelink.StallPolicy{Steps: o.OnStall.Names(), DowntimeMS: o.Downtime.Milliseconds(), MaxDowntimeMS: o.MaxDowntime.Milliseconds()}
	return send, nil
}

func wireOptions(o migration.Options) nodelink.MoveOptions {
	return nodelink.MoveOptions{
		BytesPerSecond: o.BytesPerSecond, DowntimeMS: o.Downtime.Milliseconds(), PatienceMS: o.Patience.Milliseconds(),
		AutoConverge: o.AutoConverge, Channels: o.Channels, Compression: o.Compression,
		Warm: o.Cutover != "", IntervalMS: o.Interval.Milliseconds(),
	}
}

// machineOf is what a node needs to make the VM's machine anew, with what is in its drives.
func machineOf(ctx context.Context, r *run, v vm.View) (nodelink.Machine, error) {
	img, err := imageOf(ctx, r, v)
	if err != nil {
		return nodelink.Machine{}, err
	}
	out := machine(v, img)
	if out.CD, err = cdFile(ctx, r, v.Intent.SeedImage); err != nil {
		return out, err
	}
	out.Medium, err = cdFile(ctx, r, v.Intent.CDROM)
	return out, err
}

// settleTime is how long the two nodes may take, after the time that a move has, to settle
// whose the VM is.
const settleTime = time.Minute

// sendLive has the source send the VM, and shows how far that is.
func sendLive(ctx context.Context, r *run, m moving, p MigrateLiveParams, send *nodelink.SendVM, pace pacer) (any, error) {
	limit := p.Timeout
	if limit == 0 {
		limit = copyTime(m.v)
	}
	budget := limit + settleTime
	send.BudgetMS = budget.Milliseconds()
	pace.has = shareOf(ctx, r, pace.has)
	send.BytesPerSecond = pace.has
	stop := watchLive(ctx, r, m, pace)
	var reply nodelink.MoveReply
	began := r.Env.Candidates.clock.Boot()
	err := call(ctx, r, m.on(m.source), send, &reply)
	seen := r.Env.Candidates.clock.Boot() - stop()
	switch {
	case err == nil && reply.Verdict == nodelink.Swapped:
		return swappedLive(ctx, r, m, reply, seen)
	case err == nil:
		return nil, gaveUp(m)
	case errs.Is(err, errs.Timeout) && r.Env.Candidates.clock.Boot()-began >= budget:
		return nil, errs.New(errs.HostFailure, "VM %q did not get to node %s within %s: its memory changes faster than it is sent, or there is too much of it; give it more bandwidth or time, a longer downtime, or let it be slowed down (auto-converge)",
			m.v.Intent.Name, m.target.Name, limit.Round(time.Second)).Because(err)
	}
	lookLive(ctx, r, m) // for what was done last
	return nil, err
}

func gaveUp(m moving) error {
	return errs.New(errs.HostFailure, "node %s gave VM %q up once it had been sent, and it goes on on node %s; the log of node %s has the reason", m.target.Name, m.v.Intent.Name, m.source.Name, m.target.Name)
}

// swappedLive is the output of a move that was swapped. Its guest was halted no longer than
// was seen.
func swappedLive(ctx context.Context, r *run, m moving, reply nodelink.MoveReply, seen time.Duration) (any, error) {
	at := reply.Progress
	at.Stage = "" // what it was is over
	err := write(ctx, r, func(tx *store.Tx) error {
		if err := progressedIn(ctx, tx, r, at); err != nil {
			return err
		}
		if !reply.Paused {
			if err := tx.MigrationPhase(ctx, r.Job.ID, migration.PhaseResumed, 0); err != nil {
				return err
			}
		}
		return tx.MigrationDowntime(ctx, r.Job.ID, migration.Downtime{Hypervisor: time.Duration(at.DowntimeMS) * time.Millisecond, Seen: seen})
	})
	if err != nil {
		return nil, err
	}
	v, err := load(ctx, r)
	return swapped{Epoch: max(v.Intent.Epoch, m.Epoch+1)}, err
}

// settleLive brings the two nodes to one verdict about what an earlier attempt has begun.
// The output has an epoch when the VM is the target's; without one, it goes on at its
// source. errs.NodeUnreachable or errs.Timeout while that is not settled.
func settleLive(ctx context.Context, r *run, m moving) (swapped, error) {
	verdict, err := targetSays(ctx, r, m)
	if err != nil {
		return swapped{}, err
	}
	v, err := load(ctx, r)
	if err != nil {
		return swapped{}, err
	}
	isThere := v.Intent.NodeID != nil && *v.Intent.NodeID == m.Target
	switch {
	case verdict == nodelink.Abandoned:
	case verdict == nodelink.Swapped && !isThere:
		return swapped{}, errs.New(errs.Internal, "node %s says that VM %q is its own, and it is not", m.target.Name, v.Intent.Name)
	case verdict != nodelink.Undecided && isThere:
		// the source hears it from its target, too, or when it is cleaned up. A target that
		// was told that the VM is not its own has ended it: then it is there, without a process
		_, _ = tellSource(ctx, r, m, m.Epoch, verdict)
		return swapped{Epoch: v.Intent.Epoch}, nil
	}
	return swapped{}, goesOnAtSource(ctx, r, m, v, verdict)
}

// goesOnAtSource brings the source the verdict that the VM, as it is now, is not its
// target's, and makes the row agree.
func goesOnAtSource(ctx context.Context, r *run, m moving, v vm.View, verdict nodelink.Verdict) error {
	epoch := m.Epoch
	if v.Intent.NodeID != nil && *v.Intent.NodeID == m.Source {
		epoch = v.Intent.Epoch // it may have been taken back, under a further one
	}
	reply, err := tellSource(ctx, r, m, epoch, verdict)
	if err == nil && verdict == nodelink.Abandoned && v.Intent.Epoch != m.Epoch {
		m.v = v
		err = takeBack(ctx, r, m, reply.Paused)
	}
	return err
}

// settleUndo is settleLive for a move that nobody goes on with. One that the source has not
// sent, or goes on from, is settled without the target, which is not asking for it and will
// not: that one may be away for long.
func settleUndo(ctx context.Context, r *run, m moving) (swapped, error) {
	if owned := m.v.Intent; owned.NodeID != nil && *owned.NodeID == m.Source && owned.Epoch == m.Epoch {
		heard, err := tellSource(ctx, r, m, m.Epoch, nodelink.Undecided)
		if err != nil || heard.Verdict == nodelink.Abandoned {
			return swapped{}, err
		}
	}
	return settleLive(ctx, r, m)
}

// targetSays gives the verdict of the target, which gives up unless it has asked for the
// VM. A target that was removed can not be given it any more.
func targetSays(ctx context.Context, r *run, m moving) (nodelink.Verdict, error) {
	if m.target.State == node.Removed {
		return nodelink.Abandoned, nil
	}
	reply, err := settleAt(ctx, r, m, m.target, m.Epoch, nodelink.Undecided)
	if errs.Is(err, errs.StaleEpoch) { // it has the VM, under a later one
		return nodelink.Swapped, nil
	}
	return reply.Verdict, err
}

// tellSource brings the source a verdict. One that was removed hears nothing any more.
func tellSource(ctx context.Context, r *run, m moving, epoch gen.OwnerEpoch, v nodelink.Verdict) (nodelink.MoveReply, error) {
	if m.source.State == node.Removed {
		return nodelink.MoveReply{Verdict: v}, nil
	}
	return settleAt(ctx, r, m, m.source, epoch, v)
}

func settleAt(ctx context.Context, r *run, m moving, at node.Node, epoch gen.OwnerEpoch, v nodelink.Verdict) (nodelink.MoveReply, error) {
	cmd := &nodelink.SettleVM{Header: head(r, m.v, epoch, stepTimeout), Verdict: v}
	cmd.Step = r.Step + ": settle " + rand.Text()
	ctx, cancel := context.WithTimeout(ctx, stepTimeout+stepTimeout/2)
	defer cancel()
	var out nodelink.MoveReply
	err := r.Env.Nodes.Call(ctx, at.ID, cmd, &out)
	if errs.Is(err, errs.NodeUnreachable) {
		err = errs.New(errs.NodeUnreachable, "node %s, which may wait with the VM: %s", at.Name, errs.As(err).Message).Because(err)
	}
	return out, err
}

// unmoveLive settles whose the VM is, and removes the copy that is not. Nobody waits for
// the removal.
func unmoveLive(ctx context.Context, r *run) error {
	var p MigrateLiveParams
	if err := r.Params(&p); err != nil {
		return err
	}
	// before anything is looked at: the answer of a server that was slow could still come
	err := write(ctx, r, func(tx *store.Tx) error {
		return tx.MigrationClose(ctx, migration.Migration{ID: r.Job.ID, VM: r.Job.Target.ID})
	})
	if err != nil {
		return err
	}
	m, err := unmoves(ctx, r)
	if err != nil {
		return err
	}
	var out swapped
	if m.lostThere() {
		err = regain(ctx, r, m)
	} else {
		out, err = settleUndo(ctx, r, m)
	}
	if err == nil {
		seeThere(ctx, r, p.Target, out.Epoch)
		err = letGoOf(ctx, r)
	}
	if err != nil {
		return err
	}
	if out.Epoch > 0 {
		return eraseAt(ctx, r, p.Source, out.Epoch, p.Volumes)
	}
	return eraseAt(ctx, r, p.Target, p.Epoch, p.Volumes)
}

// cleanUpLive takes the target's word for how the VM is, and removes what the source has
// left of it.
func cleanUpLive(ctx context.Context, r *run) (any, error) {
	var p MigrateLiveParams
	if err := r.Params(&p); err != nil {
		return nil, err
	}
	s, err := workflow.MustOutput[swapped](r, "move")
	if err != nil {
		return nil, err
	}
	seeThere(ctx, r, p.Target, s.Epoch)
	return cleanSource(ctx, r, p.MigrateParams, s.Epoch)
}

// seeThere has the target say how a VM is that moved to it, unless it has. One that does
// not answer reports when it can.
func seeThere(ctx context.Context, r *run, target id.ID, epoch gen.OwnerEpoch) {
	v, err := load(ctx, r)
	if err != nil || v.Intent.NodeID == nil || *v.Intent.NodeID != target || v.Intent.Epoch != epoch {
		return
	}
	if o := v.Observed; o == nil || o.Epoch != epoch || o.NodeID != target || o.Phase == vm.PhaseIncoming {
		_, _ = observe(ctx, r, v, &nodelink.Look{Header: head(r, v, epoch, stepTimeout)})
	}
}
