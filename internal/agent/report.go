package agent

import (
	"sync"

	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

const exited = vm.PhaseExited

// reporter numbers observations and keeps the newest of each VM until a server
// has taken it. It never blocks and holds one report per VM at most.
type reporter struct {
	mu sync.Mutex
	// next is the last number given. The agent's incarnation is its upper half,
	// so numbers grow across restarts without a write per report.
	next    gen.ReportSeq
	last    map[id.ID]nodelink.Report
	unsent  map[id.ID]struct{}
	wake    chan struct{}
	watches map[*watch]struct{}
	// told counts what the driver told, seen is the count at which it spoke of a VM
	told int64
	seen map[id.ID]int64
	// notes are what guests that are there said
	notes map[id.ID]note
	// anew are incarnations whose firmware began anew
	anew map[id.ID]gen.OwnerEpoch
	// disowned are incarnations that were ended because their disks are another node's
	disowned map[id.ID]disowned
	// foretell, unless nil, gives the addresses that a guest will say it has
	foretell func(hypervisor.Ref) []string
}

// note is what the guest of one incarnation said.
type note struct {
	epoch gen.OwnerEpoch
	nodelink.GuestNote
}

type watch struct {
	vm id.ID
	is func(hypervisor.Status) bool
	ch chan struct{}
}

func newReporter(epoch gen.NodeEpoch) *reporter {
	return &reporter{
		next:    gen.ReportSeq(epoch) << 32,
		last:    map[id.ID]nodelink.Report{},
		unsent:  map[id.ID]struct{}{},
		wake:    make(chan struct{}, 1),
		watches: map[*watch]struct{}{},
		seen:    map[id.ID]int64{},
		notes:   map[id.ID]note{},
		anew:    map[id.ID]gen.OwnerEpoch{},

		disowned: map[id.ID]disowned{},
	}
}

// observe takes a status from the driver: it is the driver's sink.
func (r *reporter) observe(s hypervisor.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told++
	r.seen[s.VM] = r.told
	r.put(s)
	for w := range r.watches {
		if w.vm == s.VM && w.is(s) {
			close(w.ch)
			delete(r.watches, w)
		}
	}
}

// count tells of the VMs last reported, by phase, and of how many no server knows
// yet.
func (r *reporter) count() (phases map[vm.Phase]int, unsent int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	phases = map[vm.Phase]int{}
	for _, last := range r.last {
		phases[last.Phase]++
	}
	return phases, len(r.unsent)
}

// report numbers a status and queues it.
func (r *reporter) report(s hypervisor.Status) nodelink.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.put(s)
}

// mark is a place in the order of what the driver tells.
func (r *reporter) mark() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told
}

// reportAt reports what was looked at since the mark, unless the driver has told
// something of the VM meanwhile: what was looked at may then be the past.
func (r *reporter) reportAt(mark int64, s hypervisor.Status) (nodelink.Report, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen[s.VM] > mark {
		return r.last[s.VM], false
	}
	return r.put(s), true
}

// fill reports a status of a VM of which nothing was reported yet.
func (r *reporter) fill(s hypervisor.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.last[s.VM]; !ok {
		r.put(s)
	}
}

// alive tells whether the newest observation of a VM is of a process.
func (r *reporter) alive(v id.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[v].Phase.OnNode()
}

// newest gives the last report about a VM; nil when there is none.
func (r *reporter) newest(v id.ID) *nodelink.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep, ok := r.last[v]
	if !ok {
		return nil
	}
	return &rep
}

// put is called with r.mu held.
func (r *reporter) put(s hypervisor.Status) nodelink.Report {
	s = r.asDisowned(s)
	s.Reason = r.why(s)
	old, ok := r.last[s.VM]
	if ok && old.Epoch == s.Epoch && old.Phase == s.Phase && old.Reason == s.Reason {
		return old
	}
	r.turnNote(s)
	rep := nodelink.Report{VM: s.VM, Epoch: s.Epoch, Phase: s.Phase, Reason: s.Reason, Since: s.Since}
	return r.queue(rep)
}

// turnNote has what the last incarnation's guest said go with it. It is called with r.mu
// held.
func (r *reporter) turnNote(s hypervisor.Status) {
	if n, ok := r.notes[s.VM]; ok && (n.epoch != s.Epoch || !s.Phase.OnNode()) {
		delete(r.notes, s.VM)
	}
	if _, ok := r.notes[s.VM]; !ok && s.Phase == vm.PhaseRunning && r.foretell != nil {
		r.notes[s.VM] = note{s.Epoch, nodelink.GuestNote{Addresses: r.foretell(s.Ref)}}
	}
}

// queue gives a report its number and what the guest said. It is called with r.mu held.
func (r *reporter) queue(rep nodelink.Report) nodelink.Report {
	r.next++
	rep.Seq, rep.Guest = r.next, nil
	if n, ok := r.notes[rep.VM]; ok {
		said := n.GuestNote
		rep.Guest = &said
	}
	r.last[rep.VM] = rep
	r.unsent[rep.VM] = struct{}{}
	r.nudge()
	return rep
}

// noted gives what the guest of an incarnation said.
func (r *reporter) noted(of hypervisor.Ref) nodelink.GuestNote {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n, ok := r.notes[of.VM]; ok && n.epoch == of.Epoch {
		return n.GuestNote
	}
	return nodelink.GuestNote{}
}

// note changes what the guest of an incarnation that is there said, and reports it if
// that is another thing.
func (r *reporter) note(of hypervisor.Ref, change func(*nodelink.GuestNote)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.last[of.VM]
	if !ok || last.Epoch != of.Epoch || !last.Phase.OnNode() {
		return
	}
	n := r.notes[of.VM]
	now := n.GuestNote
	change(&now)
	if now.Equal(&n.GuestNote) {
		return
	}
	r.notes[of.VM] = note{of.Epoch, now}
	r.queue(last)
}

// is tells whether an incarnation is there.
func (r *reporter) is(of hypervisor.Ref) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.last[of.VM]
	return ok && last.Epoch == of.Epoch && last.Phase.OnNode()
}

// there lists the guests that are there.
func (r *reporter) there() []hypervisor.Ref {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []hypervisor.Ref
	for _, last := range r.last {
		if last.Phase == vm.PhaseRunning {
			out = append(out, hypervisor.Ref{VM: last.VM, Epoch: last.Epoch})
		}
	}
	return out
}

func (r *reporter) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// watch gives a channel that closes when a status of the VM satisfies is.
func (r *reporter) watch(vm id.ID, is func(hypervisor.Status) bool) (<-chan struct{}, func()) {
	w := &watch{vm: vm, is: is, ch: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watches[w] = struct{}{}
	return w.ch, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watches, w)
	}
}

// all queues everything again: a server may have lost what another one took.
func (r *reporter) all() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for vm := range r.last {
		r.unsent[vm] = struct{}{}
	}
	r.nudge()
}

// batch gives reports that no server has taken yet.
func (r *reporter) batch() []nodelink.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]nodelink.Report, 0, min(len(r.unsent), nodelink.MostReports))
	for vm := range r.unsent {
		if len(out) == nodelink.MostReports {
			break
		}
		out = append(out, r.last[vm])
	}
	return out
}

// taken marks reports as delivered, unless newer ones came meanwhile.
func (r *reporter) taken(sent []nodelink.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range sent {
		if r.last[s.VM].Seq <= s.Seq {
			delete(r.unsent, s.VM)
		}
	}
}

func (r *reporter) forget(vm id.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, vm)
	delete(r.unsent, vm)
	delete(r.seen, vm)
	delete(r.notes, vm)
	delete(r.anew, vm)
	delete(r.disowned, vm)
}
