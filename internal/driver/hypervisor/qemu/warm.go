package qemu

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// A warm move copies its disks by the same mirrors as a live one, which it halts between two
// rounds: what the guest writes meanwhile, QEMU notes in each mirror's own map. A mirror that
// cannot write to the target stops with what it lacks, instead of ending, and goes on where it
// was once there is a way again. The guest waits for none of that: it writes to its own disk
// alone.

var _ contract.Warmer = (*Driver)(nil)

const (
	// warmLook spaces the looks at a round under way, and at what changes between two.
	warmLook = 250 * time.Millisecond
	// againEvery spaces tries to reach a target that was cut off.
	againEvery = time.Second
	// standstill is how long nothing of a round may come to the target before its streams are
	// taken for broken.
	standstill = 30 * time.Second
	// shortRound is how long the last round may take that begins before the guest is halted,
	// and extraRounds how many there may be to get there.
	shortRound  = time.Second
	extraRounds = 3
)

// Cutover implements contract.Warmer.
func (d *Driver) Cutover(_ context.Context, r contract.Ref) error {
	g, err := d.live(r)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.asked.Send == nil || g.asked.Send.Sent || g.departed == nil || !g.departed.options.Warm {
		return contract.ErrNotWarm(r.VM)
	}
	g.departed.cutOver()
	return nil
}

// cutOver has a warm move of the departure come to its end.
func (d *departed) cutOver() {
	select {
	case d.over <- struct{}{}:
	default:
	}
}

// warm copies the disks in rounds until it is told to cut over, and then what is left, with
// the guest halted.
func (m *move) warm(ctx context.Context) error {
	m.at.Warm = &m.warmth
	m.report(contract.StageWarm)
	m.streams.renew(true)
	if err := m.beginMirrors(ctx, "stop"); err != nil {
		return err
	}
	for over := false; !over; {
		err := m.round(ctx)
		if err == nil {
			over, err = m.rest(ctx)
		}
		if err != nil {
			return err
		}
	}
	for range extraRounds {
		if m.expected() <= shortRound {
			break
		}
		if err := m.round(ctx); err != nil {
			return err
		}
	}
	if err := m.proven(ctx); err != nil {
		return err
	}
	return m.lastRound(ctx)
}

// proven returns once the target lets the source in: nobody is halted for one that does not.
func (m *move) proven(ctx context.Context) error {
	for len(m.Disks) > 0 {
		if !m.streams.broken() {
			c, err := m.streams.reach(contract.StreamDisks)
			if err == nil {
				return c.NetConn().Close()
			}
			m.streams.cut()
		}
		if err := m.again(ctx); err != nil {
			return err
		}
	}
	return nil
}

// expected is how long a round would take now, at the pace of the one before.
func (m *move) expected() time.Duration {
	if m.warmth.LastBytes == 0 {
		return 0
	}
	return time.Duration(float64(m.warmth.Changed) / float64(m.warmth.LastBytes) * float64(m.warmth.LastTook))
}

// round copies what has changed when it begins; of the first, everything. Then the mirrors
// rest.
func (m *move) round(ctx context.Context) error {
	began := m.g.d.opt.Clock.Boot()
	jobs, err := m.moveJobs(ctx)
	if err != nil {
		return err
	}
	changed, err := m.g.changed(ctx)
	if err != nil {
		return err
	}
	goal, before := map[string]int64{}, m.at.DisksMoved
	for _, j := range jobs {
		if m.warmth.Rounds > 0 {
			goal[j.Device] = j.Offset + changed[j.Device]
		}
	}
	if err := m.wake(ctx, jobs); err != nil {
		return err
	}
	if err := m.untilGoal(ctx, goal); err != nil {
		return err
	}
	if jobs, err = m.moveJobs(ctx); err != nil {
		return err
	}
	m.warmth.Rounds++
	for _, j := range jobs {
		if err := m.g.tell(ctx, "block-job-pause", object{"device": j.Device}, nil); err != nil {
			return err
		}
	}
	m.warmth.LastBytes, m.warmth.LastTook = m.at.DisksMoved-before, m.g.d.opt.Clock.Boot()-began
	return m.lookChanged(ctx)
}

// moveJobs are the mirrors, all of them, and what of them is for people.
func (m *move) moveJobs(ctx context.Context) ([]job, error) {
	jobs, err := m.g.moveJobs(ctx)
	if err == nil && len(jobs) != len(m.Disks) {
		err = errs.New(errs.HostFailure, "%d of %d disks of VM %s are being copied", len(jobs), len(m.Disks), m.g.ref.VM)
	}
	m.at.DisksMoved = 0
	for _, j := range jobs {
		m.at.DisksMoved += j.Offset
		if err == nil && (j.Error != "" || j.Status == "aborting") {
			err = errs.New(errs.HostFailure, "a disk of VM %s cannot be copied to the other host", m.g.ref.VM).Because(errors.New(j.Error))
		}
	}
	return jobs, err
}

// wake has mirrors go on that rest.
func (m *move) wake(ctx context.Context, jobs []job) error {
	for _, j := range jobs {
		if !j.Paused {
			continue
		}
		if err := m.g.tell(ctx, "block-job-resume", object{"device": j.Device}, nil); err != nil {
			return err
		}
	}
	return nil
}

// untilGoal waits until each mirror has come as far as it should, over streams that are opened
// anew where they break.
func (m *move) untilGoal(ctx context.Context, goal map[string]int64) error {
	clk := m.g.d.opt.Clock
	moved, at := int64(-1), clk.Boot()
	for {
		jobs, err := m.moveJobs(ctx)
		if err != nil {
			return err
		}
		if jobs, err = m.mended(ctx, jobs); err != nil {
			return err
		}
		left, there, err := m.left(ctx, jobs, goal)
		if err != nil {
			return err
		}
		m.at.DisksRemaining, m.warmth.Changed = left, left
		m.report(contract.StageWarm)
		if m.at.DisksMoved != moved {
			moved, at = m.at.DisksMoved, clk.Boot()
		}
		if there {
			return nil
		}
		if clk.Boot()-at > standstill {
			m.streams.cut()
			at = clk.Boot()
		}
		if err := m.pause(ctx, lookEvery); err != nil {
			return err
		}
	}
}

// left is what mirrors lack, in bytes, and whether each is where it should be: it has copied as
// much as had changed when the round began, or there is nothing left to copy. What a mirror that
// begins has before it shows once it has found that out.
func (m *move) left(ctx context.Context, jobs []job, goal map[string]int64) (left int64, there bool, err error) {
	changed, err := m.g.changed(ctx)
	there = true
	for _, j := range jobs {
		if goal[j.Device] == 0 {
			goal[j.Device] = j.Length
		}
		lacks := goal[j.Device] - j.Offset
		if j.Ready && changed[j.Device] == 0 && j.Offset == j.Length {
			lacks = 0
		}
		left += max(0, lacks)
		there = there && lacks <= 0 && (j.Ready || j.Length > 0)
	}
	return left, there, err
}

// pause waits for a time, or until the hypervisor tells something.
func (m *move) pause(ctx context.Context, d time.Duration) error {
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-m.g.nudge:
			cancel()
		case <-wait.Done():
		}
	}()
	_ = m.g.d.opt.Clock.Sleep(wait, d)
	return context.Cause(ctx)
}

// mended gives the mirrors once none of them waits with what it could not copy, over streams
// that are opened anew where they broke. QEMU connects when it has something to write, and in
// the background: the first may find no connection yet, and is waked again.
func (m *move) mended(ctx context.Context, jobs []job) ([]job, error) {
	for tries := 1; ; tries++ {
		stopped := slices.DeleteFunc(slices.Clone(jobs), func(j job) bool { return !j.stopped() })
		if len(stopped) == 0 && !m.streams.broken() {
			return jobs, nil
		}
		if tries%wakeTries == 0 {
			m.streams.cut()
		}
		if m.streams.broken() {
			if err := m.again(ctx); err != nil {
				return nil, err
			}
		}
		err := m.wake(ctx, stopped)
		if err == nil {
			err = m.sleep(ctx, warmLook) // not less: to be waked is an event, too
		}
		if err == nil {
			jobs, err = m.moveJobs(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
}

// sleep waits for a time, whatever the hypervisor tells meanwhile.
func (m *move) sleep(ctx context.Context, d time.Duration) error {
	if m.g.d.opt.Clock.Sleep(ctx, d) != nil {
		return context.Cause(ctx)
	}
	return nil
}

// wakeTries is how often mirrors are waked, warmLook apart, before the streams are taken for
// broken again: QEMU connects less often the longer it could not.
const wakeTries = 100

// again opens the way to the target anew, for as long as that takes.
func (m *move) again(ctx context.Context) error {
	m.warmth.Cut = true
	m.warmth.Cuts++
	m.report(m.at.Stage)
	told := false
	for {
		err := m.streams.again()
		if err == nil {
			m.warmth.Cut = false
			m.report(m.at.Stage)
			return nil
		}
		if contract.TargetGone(err) {
			return err
		}
		if !told {
			m.g.d.log.Warn("the target of a move is cut off; it is tried again", "vm", m.g.ref.VM, "error", err)
			told = true
		}
		if err := m.g.d.opt.Clock.Sleep(ctx, againEvery); err != nil {
			return context.Cause(ctx)
		}
	}
}

// rest waits for the next round, and tells whether it is to be the end.
func (m *move) rest(ctx context.Context) (over bool, err error) {
	clk := m.g.d.opt.Clock
	until := clk.Boot() + m.options.Interval
	for clk.Boot() < until {
		select {
		case <-m.over:
			return true, m.lookChanged(ctx)
		default:
		}
		if err := clk.Sleep(ctx, min(warmLook, until-clk.Boot())); err != nil {
			return false, context.Cause(ctx)
		}
		if m.streams.broken() {
			if err := m.again(ctx); err != nil {
				return false, err
			}
		}
		if err := m.lookChanged(ctx); err != nil {
			return false, err
		}
	}
	return false, nil
}

// lookChanged tells how much has changed since the last round.
func (m *move) lookChanged(ctx context.Context) error {
	changed, err := m.g.changed(ctx)
	if err != nil {
		return err
	}
	m.warmth.Changed = 0
	for _, n := range changed {
		m.warmth.Changed += n
	}
	m.at.DisksRemaining = m.warmth.Changed
	m.report(contract.StageWarm)
	return nil
}

// changed is what each mirror has to copy, in bytes, by the name of its job.
func (g *guest) changed(ctx context.Context) (map[string]int64, error) {
	var nodes []struct {
		Name string `json:"node-name"`
		Maps []struct {
			Name  string `json:"name"`
			Count int64  `json:"count"`
		} `json:"dirty-bitmaps"`
	}
	if err := g.tell(ctx, "query-named-block-nodes", object{"flat": true}, &nodes); err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for i, k := range g.rec.Machine.Disks {
		if !k.Moves() {
			continue
		}
		for _, n := range nodes {
			if n.Name != diskName(i) {
				continue
			}
			for _, b := range n.Maps {
				if b.Name == "" { // a mirror's own
					out[moveJob(diskName(i))] += b.Count
				}
			}
		}
	}
	return out, nil
}

// lastRound copies the rest of the disks of a guest that is halted for it. It takes no
// longer than the patience, broken streams or not.
func (m *move) lastRound(ctx context.Context) error {
	m.untracked = true
	patient, cancel := m.patient(ctx)
	defer cancel()
	m.report(contract.StageSwitchover)
	if err := m.stop(patient); err != nil {
		return err
	}
	jobs, err := m.moveJobs(patient)
	if err == nil {
		err = m.wake(patient, jobs)
	}
	if err != nil {
		return err
	}
	return m.untilJobs(patient, func(j job) bool { return j.Ready && j.Offset == j.Length })
}

// stop halts the guest. With that QEMU flushes what it has not yet, also what leads to the
// target, and so connects again where a stream broke while there was nothing to write. Sending
// memory ends with such a flush, too, and fails with it. Where there is nothing to flush, there
// is nothing to connect for.
func (m *move) stop(ctx context.Context) error {
	for range connectLooks {
		whole := m.streams.whole(len(m.Disks))
		if err := m.g.tell(ctx, "stop", nil, nil); err != nil || whole {
			return err
		}
		if err := m.pause(ctx, connectLook); err != nil {
			return err
		}
	}
	return nil
}

// connectLook is how often it is looked whether QEMU is connected, and connectLooks how many
// times.
const (
	connectLook  = 20 * time.Millisecond
	connectLooks = 15
)
