package control_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/drain"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// drained is a request by which guests have no time to shut down.
func drained(change ...func(*drain.Request)) drain.Request {
	r := drain.Request{Reason: "a test"}
	for _, c := range change {
		c(&r)
	}
	return r
}

// populated makes a cluster of nodes with VMs that run on the first.
func populated(t *testing.T, nodes int, names ...string) *controltest.Cluster {
	t.Helper()
	c := controltest.New(t, nodes)
	for _, name := range names {
		n := c.NewVM(name, true)
		n.Node = "n1"
		_, err := c.Service.CreateVM(t.Context(), controltest.Admin(), n)
		if err != nil {
			t.Fatal(err)
		}
	}
	drive(t, c, nil)
	return c
}

func named(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("vm-%d", i))
	}
	return names
}

func drainN1(t *testing.T, c *controltest.Cluster, r drain.Request) id.ID {
	t.Helper()
	a, err := c.Service.DrainNode(t.Context(), controltest.Admin(), "n1", r)
	if err != nil {
		t.Fatal(err)
	}
	return *a.Job
}

// onNode lists the VMs of a node that appear in a state.
func onNode(t *testing.T, c *controltest.Cluster, node string, state vm.State) (names []string) {
	t.Helper()
	vms, _, err := c.Service.VMs(t.Context(), store.Page{Limit: 100, Filters: map[string]string{"node": node}})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vms {
		if a := vm.Appear(v); a.State == state {
			names = append(names, v.Intent.Name)
		} else if state != "" {
			t.Errorf("%s on %s appears as %s (%s)", v.Intent.Name, node, a.State, a.Reason)
		}
	}
	slices.Sort(names)
	return names
}

// atOnce is how many VMs a drain worked on at the same time, at most, as its record and
// those of the migrations tell.
func atOnce(t *testing.T, c *controltest.Cluster, d id.ID) (vms, migrations int) {
	t.Helper()
	const overlaps = `WITH spans AS (%s) SELECT max((SELECT count(*) FROM spans b WHERE b.f <= a.f AND b.t > a.f)) FROM spans a`
	for to, spans := range map[*int]string{
		&vms:        "SELECT started_at AS f, finished_at AS t FROM drain_vms WHERE drain_id = $1 AND started_at IS NOT NULL",
		&migrations: "SELECT created_at AS f, finished_at AS t FROM migrations WHERE $1::uuid IS NOT NULL",
	} {
		if err := c.DB.App.QueryRow(t.Context(), fmt.Sprintf(overlaps, spans), d).Scan(to); err != nil {
			t.Fatal(err)
		}
	}
	return vms, migrations
}

// A node of ten guests is emptied, never more of them at a time than was asked for; what
// is created meanwhile does not land there, a second drain is told of the first, and the
// node gets back what was taken from it.
func TestDrain(t *testing.T) {
	t.Parallel()
	c := populated(t, 3, named(10)...)
	const most = 3
	before := rows(t, c)
	plan, err := c.Service.PlanDrain(t.Context(), "n1", drained())
	if err != nil || len(plan.Items) != 10 || len(plan.Blocked()) != 0 || plan.Items[0].Name != "vm-0" || plan.Items[0].Action != drain.Live {
		t.Fatalf("%+v %v", plan, err)
	}
	if after := rows(t, c); after != before {
		t.Errorf("the plan changed something:\n%s\nbefore:\n%s", after, before)
	}
	j := drainN1(t, c, drained(func(r *drain.Request) { r.Parallel = most }))
	if n, err := c.Service.Node(t.Context(), "n1"); err != nil || n.State != node.Cordoned {
		t.Errorf("%+v %v", n, err)
	}
	for what, again := range map[string]func() error{
		"a second drain": func() error {
			_, err := c.Service.DrainNode(t.Context(), controltest.Admin(), "n1", drained())
			return err
		},
		"a return": func() error {
			_, err := c.Service.ReturnNode(t.Context(), controltest.Admin(), "n1", true, drained())
			return err
		},
		"uncordon": func() error {
			_, err := c.Service.SetNode(t.Context(), controltest.Admin(), "n1", node.Active, nil)
			return err
		},
	} {
		if err := again(); !errs.Is(err, errs.Conflict) || errs.As(err).Job != j.String() {
			t.Errorf("%s meanwhile: %v", what, err)
		}
	}
	for i := range 5 {
		if _, err := c.Service.CreateVM(t.Context(), controltest.Admin(), c.NewVM(fmt.Sprintf("new-%d", i), true)); err != nil {
			t.Fatal(err)
		}
	}
	drive(t, c, nil)
	jobIs(t, c, &j, job.Succeeded, "")
	if left := onNode(t, c, "n1", vm.Running); len(left) != 0 {
		t.Errorf("%v are still there", left)
	}
	if all := len(onNode(t, c, "n2", vm.Running)) + len(onNode(t, c, "n3", vm.Running)); all != 15 {
		t.Errorf("%d run elsewhere", all)
	}
	if vms, moves := atOnce(t, c, j); vms != most || moves > most || moves == 0 {
		t.Errorf("%d VMs and %d migrations at once, %d were to be", vms, moves, most)
	}
	d, err := c.Service.LastDrain(t.Context(), "n1")
	if err != nil || d.ID != j || len(d.In(drain.Done)) != 10 || d.State != "succeeded" || d.FinishedAt == nil || d.CreatedBy != "test" {
		t.Errorf("%+v %v", d, err)
	}
	clean(t, c)
	returned(t, c)
}

// returned gives n1 back what TestDrain took from it.
func returned(t *testing.T, c *controltest.Cluster) {
	t.Helper()
	request(t, c, "vm-9", vm.Delete) // is none of it any more
	request(t, c, "vm-8", vm.Stop)   // stays stopped
	a, err := c.Service.ReturnNode(t.Context(), controltest.Admin(), "n1", true, drained())
	drive(t, c, err)
	jobIs(t, c, a.Job, job.Succeeded, "")
	var stopped []string
	for _, name := range named(9) {
		v := isOn(t, c, name, "n1")
		if vm.Appear(v).State == vm.Stopped {
			stopped = append(stopped, name)
		}
	}
	if len(stopped) != 1 || stopped[0] != "vm-8" {
		t.Errorf("%v are stopped", stopped)
	}
	if n, err := c.Service.Node(t.Context(), "n1"); err != nil || n.State != node.Active || n.VMs != 9 {
		t.Errorf("%+v %v", n, err)
	}
	if a, err := c.Service.ReturnNode(t.Context(), controltest.Admin(), "n1", true, drained()); err != nil || a.Job != nil {
		t.Errorf("twice: %+v %v", a, err)
	}
	clean(t, c)
}

// What cannot be done is refused with what stands against it, and nothing is changed; it
// is done in part when that is asked for, by each VM's own policy, and that is recorded.
func TestDrainInPart(t *testing.T) {
	t.Parallel()
	c := populated(t, 2, "moves", "refuses", "stops", "large")
	for name, p := range map[string]vm.DrainPolicy{"refuses": vm.DrainRefuse, "stops": vm.DrainStop, "moves": vm.DrainCold} {
		if _, err := c.Service.UpdateVM(t.Context(), controltest.Admin(), name, vm.Change{Policy: vm.PolicyChange{Drain: &p}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.DB.App.Exec(t.Context(), "UPDATE vms SET memory_bytes = $1 WHERE name = 'large'", 1<<50); err != nil {
		t.Fatal(err)
	}
	before := rows(t, c)
	_, err := c.Service.DrainNode(t.Context(), controltest.Admin(), "n1", drained())
	e := errs.As(err)
	if !errs.Is(err, errs.InUse) || len(e.Blockers) != 2 || !strings.HasPrefix(e.Blockers[0], "large: no node fits") || e.Blockers[1] != "refuses: its drain policy is refuse" {
		t.Errorf("%v %q", err, e.Blockers)
	}
	if after := rows(t, c); after != before {
		t.Errorf("a refusal changed something:\n%s\nbefore:\n%s", after, before)
	}
	j := drainN1(t, c, drained(func(r *drain.Request) { r.Partial = true }))
	drive(t, c, nil)
	jobIs(t, c, &j, job.Succeeded, "")
	isOn(t, c, "moves", "n2")
	if s := vm.Appear(isOn(t, c, "stops", "n1")).State; s != vm.Stopped {
		t.Errorf("stops is %s", s)
	}
	for _, name := range []string{"refuses", "large"} {
		if s := vm.Appear(isOn(t, c, name, "n1")).State; s != vm.Running {
			t.Errorf("%s is %s", name, s)
		}
	}
	var partial bool
	err = c.DB.App.QueryRow(t.Context(), "SELECT (detail->>'partial')::boolean FROM audit_log WHERE action = 'node.drain' AND job_id = $1", j).Scan(&partial)
	if err != nil || !partial {
		t.Errorf("the audit log: %v %v", partial, err)
	}
	if _, err := c.DB.App.Exec(t.Context(), "UPDATE vms SET memory_bytes = $1 WHERE name = 'large'", 64*unit.MiB); err != nil {
		t.Fatal(err)
	}
	a, err := c.Service.ReturnNode(t.Context(), controltest.Admin(), "n1", true, drained())
	drive(t, c, err)
	jobIs(t, c, a.Job, job.Succeeded, "")
	if got := onNode(t, c, "n1", vm.Running); len(got) != 4 {
		t.Errorf("%v run there again", got)
	}
	clean(t, c)
}

// A VM that cannot be moved after all runs again where it was, the others move, and the
// drain says of it why. One that comes while the node is drained goes too.
func TestDrainFails(t *testing.T) {
	t.Parallel()
	c := populated(t, 2, "a", "b")
	j := drainN1(t, c, drained(func(r *drain.Request) { r.Parallel, r.Policy = 1, vm.DrainCold }))
	// what the plan counted on is not there any more when it comes to it
	n := c.NewVM("c", false)
	if _, err := c.Service.CreateVM(t.Context(), controltest.Admin(), n); err != nil {
		t.Fatal(err)
	}
	size := view(t, c, "a").DiskBytes()
	if _, err := c.DB.App.Exec(t.Context(), "UPDATE nodes SET disk_bytes = $1 WHERE name = 'n2'", 2*size+size/2); err != nil {
		t.Fatal(err)
	}
	drive(t, c, nil)
	got := jobIs(t, c, &j, job.Failed, errs.InUse)
	if !strings.Contains(got.ErrorMessage, "b: ") || !strings.Contains(got.ErrorMessage, "disk free") {
		t.Error(got.ErrorMessage)
	}
	isOn(t, c, "a", "n2")
	if s := vm.Appear(isOn(t, c, "b", "n1")).State; s != vm.Running {
		t.Errorf("b is %s", s)
	}
	clean(t, c)
}

// A VM whose place was chosen before its node was cordoned, and that the plan does not know,
// goes too.
func TestDrainTakesLatecomers(t *testing.T) {
	t.Parallel()
	c := populated(t, 2, "known", "late")
	j := drainN1(t, c, drained())
	if _, err := c.DB.App.Exec(t.Context(), "DELETE FROM drain_vms WHERE vm_name = 'late'"); err != nil {
		t.Fatal(err)
	}
	drive(t, c, nil)
	jobIs(t, c, &j, job.Succeeded, "")
	if got := onNode(t, c, "n2", vm.Running); len(got) != 2 {
		t.Errorf("%v moved", got)
	}
	clean(t, c)
}

// A VM that somebody works on is waited for; one that is deleted or started meanwhile is no
// trouble.
func TestDrainWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	c := populated(t, 2, "busy", "gone")
	a, err := c.Service.AskVM(t.Context(), controltest.Admin(), "busy", vm.Restart, control.Stop{})
	if err == nil {
		_, err = c.Service.AskVM(t.Context(), controltest.Admin(), "gone", vm.Delete, control.Stop{})
	}
	if err != nil {
		t.Fatal(err)
	}
	j := drainN1(t, c, drained(func(r *drain.Request) { r.Parallel = 1 }))
	drive(t, c, nil)
	jobIs(t, c, a.Job, job.Succeeded, "")
	jobIs(t, c, &j, job.Succeeded, "")
	if v := isOn(t, c, "busy", "n2"); vm.Appear(v).State != vm.Running {
		t.Errorf("%+v", vm.Appear(v))
	}
	clean(t, c)
}

// A node that is gone in the middle of its drain ends it, and what went before is not
// undone.
func TestDrainLosesItsNode(t *testing.T) {
	t.Parallel()
	c := populated(t, 2, named(4)...)
	j := drainN1(t, c, drained(func(r *drain.Request) { r.Parallel = 1 }))
	driveUntil(t, c, func() bool {
		var moved int
		err := c.DB.App.QueryRow(t.Context(), "SELECT count(*) FROM drain_vms WHERE state = 'done'").Scan(&moved)
		return err != nil || moved > 0
	}, func() {
		c.Nodes[0].SetDown(true)
		if _, err := c.Service.RemoveNodeByForce(t.Context(), controltest.Admin(), "n1", nil); err != nil {
			t.Error(err)
		}
	})
	got := jobIs(t, c, &j, job.Failed, errs.InUse)
	if !strings.Contains(got.ErrorMessage, "removed") {
		t.Error(got.ErrorMessage)
	}
	if moved := onNode(t, c, "n2", vm.Running); len(moved) == 0 {
		t.Errorf("%v moved", moved)
	}
}

// A drain that is cancelled leaves no VM half-way, and lets those be that it has not
// begun with; it is asked for again, and goes on where it was.
func TestDrainIsCancelled(t *testing.T) {
	t.Parallel()
	c := populated(t, 2, named(4)...)
	j := drainN1(t, c, drained(func(r *drain.Request) { r.Parallel = 1 }))
	driveUntil(t, c, func() bool {
		var moved int
		err := c.DB.App.QueryRow(t.Context(), "SELECT count(*) FROM migrations").Scan(&moved)
		return err != nil || moved > 0
	}, func() {
		if _, err := c.Service.CancelJob(t.Context(), controltest.Admin(), j); err != nil {
			t.Error(err)
		}
	})
	jobIs(t, c, &j, job.Cancelled, errs.Cancelled)
	moved, stayed := onNode(t, c, "n2", vm.Running), onNode(t, c, "n1", vm.Running)
	if len(moved) == 0 || len(moved) > 2 || len(moved)+len(stayed) != 4 {
		t.Errorf("%v moved, %v stayed", moved, stayed)
	}
	again := drainN1(t, c, drained())
	drive(t, c, nil)
	jobIs(t, c, &again, job.Succeeded, "")
	if left := onNode(t, c, "n1", vm.Running); len(left) != 0 {
		t.Errorf("%v are left", left)
	}
	clean(t, c)
}

// driveUntil drives jobs, and does something once a state is there.
func driveUntil(t *testing.T, c *controltest.Cluster, there func() bool, do func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- c.Drive(t.Context()) }()
	until(t, "it comes to that", there)
	do()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A node that nobody hears of is not drained: nobody can tell what runs there.
func TestDrainOfWhatIsAway(t *testing.T) {
	t.Parallel()
	c := populated(t, 2, "a")
	c.Nodes[0].SetDown(true)
	for name, ask := range map[string]func() error{
		"drain": func() error {
			_, err := c.Service.DrainNode(t.Context(), controltest.Admin(), "n1", drained())
			return err
		},
		"return": func() error {
			_, err := c.Service.ReturnNode(t.Context(), controltest.Admin(), "n1", false, drained())
			return err
		},
	} {
		if err := ask(); !errs.Is(err, errs.NodeUnreachable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Service.DrainNode(t.Context(), controltest.Admin(), "n9", drained()); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
	if _, err := c.Service.LastDrain(t.Context(), "n2"); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
}
