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
	"github.com/novacron/novacron/internal/vocab/id"
)

// VMMigrateWarm moves a VM that runs, or is paused, to another node. Its disks are copied
// ahead, in rounds, for as long as who asked wants, while it goes on; then it is halted once,
// for the last round and for its memory.
//
// The source copies by itself, and the job looks at it now and then, from whatever server: no
// command takes as long. From the cutover on it is as a live one, and its swap is the nodes'.
// What either end loses is begun anew, and that stands in the record. Until the swap it unwinds
// to a VM that goes on where it was, as a live one does.
func VMMigrateWarm() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobMigrateWarm,
		Steps: []workflow.Step[Env]{
			{Name: "find nodes", Do: findBoth, InDatabase: true, Cancellable: true},
			{Name: "wait for its turn", Do: waitTurn, InDatabase: true, Cancellable: true},
			{Name: "fetch images", Do: fetchThere, Cancellable: true},
			// its undo settles whose the VM is, and removes what the other node has of it
			{Name: "move", Do: moveWarm, Undo: unmoveLive, Cancellable: true},
			{Name: "clean up", Do: cleanUpLive, NoReturn: true},
		},
		Finish: finishMigrate,
	}
}

// lookWarm is how often the rounds are looked at.
const lookWarm = time.Second

// warmMove is a warm migration as one look finds it: as its source tells, and as its record
// does.
type warmMove struct {
	moving
	p  MigrateLiveParams
	at nodelink.MoveProgress
	w  store.Warm
}

// moveWarm does what is next: it begins the rounds, shows how far they are, has them come to
// their end, or takes what came of that.
func moveWarm(ctx context.Context, r *run) (any, error) {
	m, err := seeWarm(ctx, r)
	switch {
	case err != nil:
		return nil, err
	case m.at.Verdict != nodelink.Undecided:
		return endWarm(ctx, r, m.moving, m.at, 0)
	case !m.at.Going:
		return beginWarm(ctx, r, m)
	case m.at.Stage == migration.PhaseWarm, m.at.Stage == "":
		return tendWarm(ctx, r, m)
	}
	return awaitWarm(ctx, r, m, r.Env.Candidates.clock.Boot()-m.p.Options.Patience)
}

func seeWarm(ctx context.Context, r *run) (m warmMove, err error) {
	if err = r.Params(&m.p); err == nil {
		m.moving, err = moves(ctx, r)
	}
	if err == nil && m.target.State == node.Removed && !isOn(m.v, m.Target) {
		err = errs.New(errs.NodeRemoved, "the node that VM %q was to move to was removed", m.v.Intent.Name)
	}
	if err != nil {
		return m, err
	}
	if m.at, err = askMove(ctx, r, m.moving, m.source); err != nil {
		return m, m.waitForBoth(err, "it is not known how far the disks are")
	}
	m.w, err = r.Env.Store.MigrationWarm(ctx, r.Job.ID)
	return m, err
}

func isOn(v vm.View, n id.ID) bool { return v.Intent.NodeID != nil && *v.Intent.NodeID == n }

// waitForBoth parks the job while one of the nodes cannot be asked.
func (m moving) waitForBoth(err error, what string) error {
	if !errs.Is(err, errs.NodeUnreachable) && !errs.Is(err, errs.Timeout) {
		return err
	}
	away := "node " + m.source.Name + " or " + m.target.Name
	switch {
	case !m.source.Reporting:
		away = "node " + m.source.Name
	case !m.target.Reporting:
		away = "node " + m.target.Name
	}
	return workflow.Wait(away+" cannot be asked: "+what+", and the VM goes on where it is", lookAgain)
}

func askMove(ctx context.Context, r *run, m moving, n node.Node) (nodelink.MoveProgress, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	var at nodelink.MoveProgress
	err := r.Env.Nodes.Call(ctx, n.ID, &nodelink.AskMove{VM: m.v.Intent.ID, Migration: r.Job.ID}, &at)
	return at, err
}

// beginWarm begins the rounds, for the first time or anew, once what there was is settled.
func beginWarm(ctx context.Context, r *run, m warmMove) (any, error) {
	if err := mayBeginWarm(ctx, r, &m); err != nil {
		return nil, m.waitForBoth(err, "its disks are copied anew once both nodes can be asked")
	}
	out, err := settleLive(ctx, r, m.moving)
	if err != nil || out.Epoch > 0 {
		return out, m.waitForBoth(err, "its disks are copied anew once both nodes can be asked")
	}
	if m.w.Begun {
		if err := begunAnew(ctx, r, m.at.Failed.Err()); err != nil {
			return nil, err
		}
	}
	if m.v, err = usable(ctx, r); err == nil && m.v.Intent.Epoch != m.Epoch {
		err = gaveUp(m.moving)
	}
	if err == nil {
		err = sendWarm(ctx, r, m)
	}
	if err != nil {
		return nil, m.waitForBoth(err, "its disks are copied once both nodes can be asked")
	}
	return nil, workflow.Wait("its disks are copied for the first time, while it runs", lookWarm)
}

// sendWarm has the two nodes meet, and the source begin.
func sendWarm(ctx context.Context, r *run, m warmMove) error {
	send, _, err := meet(ctx, r, m.moving, m.p.Options)
	if err != nil {
		return err
	}
	send.BudgetMS, send.Warm, send.Stall = stepTimeout.Milliseconds(), true, nil
	if err := call(ctx, r, m.on(m.source), send, nil); err != nil {
		return err
	}
	return progressed(ctx, r, nodelink.MoveProgress{Stage: migration.PhaseWarm})
}

// mayBeginWarm refuses what cannot come to its end. The guest of one that had begun may have
// ended meanwhile: it is looked at.
func mayBeginWarm(ctx context.Context, r *run, m *warmMove) (err error) {
	if m.w.Begun {
		if err = seeAsIs(ctx, r); err == nil {
			m.v, err = usable(ctx, r)
		}
	}
	if err != nil {
		return err
	}
	why := m.at.Failed.Err()
	switch {
	case !m.v.Executes():
		return errs.New(errs.InvalidState, "VM %q has ended by itself while its disks were copied, and what was copied is of no use: move it again, at rest", m.v.Intent.Name).Because(why)
	case why != nil && m.at.Stage != migration.PhaseWarm && m.at.Stage != "":
		return why // at its end: to begin anew would not make that shorter
	case m.w.Anew >= migration.MaxAnew:
		return errs.New(errs.HostFailure, "the disks of VM %q were begun to be copied %d times: what lies between its nodes, or one of them, does not last", m.v.Intent.Name, m.w.Anew+1).Because(why)
	}
	return nil
}

// begunAnew notes that what was copied is lost.
func begunAnew(ctx context.Context, r *run, why error) error {
	reason := "the agent of one of the nodes began anew, or one of the two processes ended"
	if why != nil {
		reason = errs.As(why).Message
	}
	e := migration.Taken{Key: rand.Text()}
	e.Step, e.Stall, e.Reason = migration.Anew, migration.Silent, reason
	return write(ctx, r, func(tx *store.Tx) error { return tx.MigrationSteps(ctx, r.Job.ID, []migration.Taken{e}) })
}

// tendWarm shows how far the rounds are, and has them come to their end when it is time.
func tendWarm(ctx context.Context, r *run, m warmMove) (any, error) {
	if err := progressed(ctx, r, m.at); err != nil {
		return nil, err
	}
	if m.w.Since > m.p.Timeout && m.w.CutoverAt == nil {
		return nil, errs.New(errs.HostFailure, "VM %q was not cut over within %s", m.v.Intent.Name, m.p.Timeout.Round(time.Second))
	}
	if m.at.Warm != nil && m.at.Warm.Cut {
		if err := stillWaits(ctx, r, m.moving); err != nil {
			return nil, err
		}
	}
	over, what := m.p.Options.CutsOver(warmthOf(m.at.Warm), m.w.CutoverAt, m.w.Now)
	if !over {
		return nil, workflow.Wait(what, lookWarm)
	}
	cmd := &nodelink.CutoverVM{Header: head(r, m.v, m.Epoch, stepTimeout)}
	cmd.Step = r.Step + ": cutover " + rand.Text()
	began := r.Env.Candidates.clock.Boot()
	err := call(ctx, r, m.on(m.source), cmd, nil)
	switch {
	case errs.Is(err, errs.InvalidState):
		return nil, workflow.Wait("its rounds have just ended", lookWarm)
	case err != nil:
		return nil, m.waitForBoth(err, "it is cut over once its node can be asked")
	}
	return awaitWarm(ctx, r, m, began)
}

// stillWaits breaks a source off that tries to reach a target that is not there any more. One
// that cannot be asked may still be.
func stillWaits(ctx context.Context, r *run, m moving) error {
	at, err := askMove(ctx, r, m, m.target)
	if err == nil && !at.Going {
		return breakOff(ctx, r, m)
	}
	return nil
}

// breakOff has a source stop that copies to nobody.
func breakOff(ctx context.Context, r *run, m moving) error {
	if _, err := tellSource(ctx, r, m, m.Epoch, nodelink.Undecided); err != nil {
		return m.waitForBoth(err, "its target does not wait for it any more")
	}
	return workflow.Wait("its target does not wait for it any more: its disks are copied anew", 0)
}

func warmthOf(w *nodelink.Warmth) migration.Warmth {
	if w == nil {
		return migration.Warmth{}
	}
	return migration.Warmth{
		Rounds: w.Rounds, LastBytes: w.LastBytes, LastTook: time.Duration(w.LastTookMS) * time.Millisecond, Changed: w.Changed, Cut: w.Cut, Cuts: w.Cuts,
	}
}

// lookEnd is how often the end of a warm migration is looked at.
const lookEnd = 200 * time.Millisecond

// lookLong is for how long it is looked at without a rest while its guest is not halted yet.
const lookLong = 30 * time.Second

// awaitWarm waits until a move that is cut over has come to its end. Before is when its guest
// was known last not to be halted.
func awaitWarm(ctx context.Context, r *run, m warmMove, before time.Duration) (any, error) {
	clk := r.Env.Candidates.clock
	limit := m.p.Options.Patience + settleTime
	began := clk.Boot()
	for last := began; clk.Boot() < last+limit; {
		asked := clk.Boot()
		at, err := askMove(ctx, r, m.moving, m.source)
		switch {
		case err != nil: // asked again
		case at.Verdict != nodelink.Undecided, !at.Going:
			return endWarm(ctx, r, m.moving, at, clk.Boot()-before)
		case at.Stage != migration.PhaseWarm:
			_ = progressed(ctx, r, at)
		case asked-began > lookLong, warmthOf(at.Warm).Cut:
			return nil, workflow.Wait("its last rounds are copied", lookWarm)
		default:
			before, last = asked, asked
			_ = progressed(ctx, r, at)
		}
		if err := clk.Sleep(ctx, lookEnd); err != nil {
			return nil, err
		}
	}
	return settledWarm(ctx, r, m.moving)
}

// settledWarm has the two nodes settle whose the VM is.
func settledWarm(ctx context.Context, r *run, m moving) (any, error) {
	out, err := settleLive(ctx, r, m)
	if err == nil && out.Epoch == 0 {
		err = gaveUp(m)
	}
	return out, err
}

// endWarm takes what came of a move: its guest was halted no longer than was seen.
func endWarm(ctx context.Context, r *run, m moving, at nodelink.MoveProgress, seen time.Duration) (any, error) {
	switch {
	case at.Verdict == nodelink.Swapped:
		return swappedLive(ctx, r, m, nodelink.MoveReply{Verdict: at.Verdict, Progress: at, Paused: m.Paused}, seen)
	case at.Verdict == nodelink.Undecided && at.Failed == nil, at.Verdict == nodelink.Disowned:
		return settledWarm(ctx, r, m)
	case at.Failed != nil:
		return nil, at.Failed.Err()
	}
	return nil, gaveUp(m)
}
