package e2e

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

// A node with a real guest is emptied: the guest goes on on the other node, with its memory;
// and comes back when the node returns, shut down this time, with its disk.
func TestNodeIsDrained(t *testing.T) {
	i := up(t, "--accel", "tcg", "--nodes", "2")
	i.importTiny()
	i.must("vm", "create", "web", "--image", "tiny", "--memory", "128MiB", "--disk", "64MiB", "--start", "--wait")
	i.logged("web", ready)
	i.console("web", "WROTE-42", "echo nova-data-7 > /dev/vda; sync; echo kept-in-memory > /remember; echo WROTE-$((6*7))")
	first := i.nodeOf("web")
	i.must("vm", "set", "web", "--drain", "refuse")
	i.fails(4, "its drain policy is refuse", "node", "drain", first)
	i.must("vm", "set", "web", "--drain", "live")
	if plan := i.must("node", "drain", first, "--plan"); !strings.Contains(plan, "live") || i.nodeOf("web") != first {
		t.Errorf("the plan: %s", plan)
	}
	i.must("node", "drain", first, "--grace", "2", "--reason", "a new fan", "--wait")
	if i.nodeOf("web") == first {
		t.Fatalf("it is on %s still", first)
	}
	i.console("web", "THERE-kept-in-memory-nova-data-7", "echo THERE-$(cat /remember)-$(head -c 11 /dev/vda)")
	if out := i.must("node", "drain", first, "--status"); !strings.Contains(out, "done") {
		t.Errorf("the record: %s", out)
	}
	i.must("node", "return", first, "--vms", "--policy", "cold", "--grace", "2", "--wait")
	if i.nodeOf("web") != first {
		t.Errorf("it is on %s", i.nodeOf("web"))
	}
	i.logged("web", ready)
	i.console("web", "BACK-nova-data-7", "echo BACK-$(head -c 11 /dev/vda)")
	i.must("vm", "delete", "web", "--wait", "--yes")
	i.must("image", "delete", "tiny", "--wait")
	i.nothingLeft()
}

// Ten real guests leave their node: those that run while they run, two at a time, which is
// what the node gives, though the drain would take more; the others with the memory that they
// were suspended with. None of them boots again, or is left.
func TestTenGuestsLeaveTheirNode(t *testing.T) {
	const guests, atOnce = 10, 2
	f := crowd(t, guests, "--nodes", "0")
	defer f.i.agentHere(binary, "from")()
	run := min(guests, get[api.Node](f.i, "node", "show", "from").Status.Capacity.CPUs)
	boots := func(n int, times string) { f.i.logged(name(n), "boots: "+times) }
	for n := range guests { // those first that are suspended, so that there is room for all
		n = guests - 1 - n
		f.i.must("vm", "create", name(n), "--image", "boot", "--memory", "16MiB", "--start", "--wait")
		boots(n, "1")
		if n >= run {
			f.i.must("vm", "suspend", name(n), "--wait")
		}
	}
	defer f.i.agentHere(binary, "to")()
	f.i.must("node", "set", "from", "--migrations-out", strconv.Itoa(atOnce))
	f.i.must("node", "set", "to", "--migrations-in", "10")
	f.i.must("node", "drain", "from", "--policy", "live", "--parallel", "10", "--wait")

	if has := get[api.Node](f.i, "node", "show", "from").Status.VMs; has != 0 {
		t.Errorf("%d VMs are left on the drained node", has)
	}
	f.wentTogether(run, atOnce)
	for n := range guests {
		v := get[api.VM](f.i, "vm", "show", name(n))
		if v.Status.Node != "to" || (v.Status.State == "running") != (n < run) {
			t.Errorf("%s is %s on %s", v.Name, v.Status.State, v.Status.Node)
		}
	}
	if run < guests {
		f.i.fails(4, "has not run on this node, or not since it moved here", "vm", "logs", name(run))
	}
	f.i.must("vm", "stop", name(0), "--force", "--wait")
	f.i.must("vm", "start", name(run%guests), "--wait") // one that was suspended, if any is
	for n := 1; n <= min(run, guests-1); n++ {
		if log := f.i.must("vm", "logs", name(n)); strings.Contains(log, "boots: 2") {
			t.Errorf("%s has booted again: %q", name(n), log)
		}
	}
	f.i.must("vm", "stop", name(run%guests), "--force", "--wait")
	f.i.must("vm", "start", name(0), "--wait")
	boots(0, "2") // its disk came with it
	f.phase("delete", "", f.c.VMs.Delete)
	f.i.must("image", "delete", "boot", "--wait")
	f.i.nothingLeft()
}

// wentTogether checks the records of a drain: so many moved live, and so many at once.
func (f *army) wentTogether(live, atOnce int) {
	t := f.i.t
	t.Helper()
	all, err := f.c.Migrations.List(t.Context(), client.ListOptions{})
	if err != nil || len(all.Items) != f.n {
		t.Fatalf("%d migrations, %v; want %d", len(all.Items), err, f.n)
	}
	for _, m := range all.Items {
		if m.State != "succeeded" || m.Source != "from" || m.Target != "to" {
			t.Errorf("%s moved from %s to %s: %s", m.VM.Name, m.Source, m.Target, m.State)
		}
		if m.Type == "live" && m.DowntimeMS > 0 {
			live--
		}
	}
	if live != 0 {
		t.Errorf("%d fewer than were running moved live", live)
	}
	if most := together(t, all.Items); most != atOnce {
		t.Errorf("%d moved at once, want %d", most, atOnce)
	}
}

// together is the most migrations that were under way at once, from when their turns came
// until there was nothing left but to remove what their sources had.
func together(t testing.TB, all []api.Migration) (most int) {
	t.Helper()
	type change struct {
		at time.Time
		by int
	}
	var changes []change
	for _, m := range all {
		end := slices.IndexFunc(m.Phases, func(p api.MigrationPhase) bool { return p.Name == "cleaning" })
		if m.BegunAt == nil || end < 0 {
			t.Fatalf("the record of %s tells not from when to when it was: %+v", m.VM.Name, m)
		}
		changes = append(changes, change{*m.BegunAt, 1}, change{m.Phases[end].At, -1})
	}
	slices.SortFunc(changes, func(x, y change) int { return x.at.Compare(y.at) })
	now := 0
	for _, c := range changes {
		now += c.by
		most = max(most, now)
	}
	return most
}
