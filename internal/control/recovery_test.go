package control_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/recovery"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// marked restores as 'novacron db restore' does, but for the incarnation: these
// nodes have no session that could take it up.
func marked(t *testing.T, c *controltest.Cluster, p *storetest.Past) {
	t.Helper()
	p.PutBack(t, func(ctx context.Context, conn *pgx.Conn) error {
		return store.MarkRestored(ctx, conn, store.Restored{BackupOf: time.Unix(1700000000, 0), Incarnation: id.New(), By: "test"})
	})
	if err := c.Service.Holds().Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func ask(t *testing.T, c *controltest.Cluster, name string, r vm.Request) error {
	t.Helper()
	_, err := c.Service.AskVM(t.Context(), controltest.Admin(), name, r, control.Stop{})
	return err
}

func create(t *testing.T, c *controltest.Cluster, name, node string) {
	t.Helper()
	n := c.NewVM(name, true)
	n.Node = node
	_, err := c.Service.CreateVM(t.Context(), controltest.Admin(), n)
	drive(t, c, err)
}

// shown is what recovery shows.
func shown(t *testing.T, c *controltest.Cluster) control.Recovery {
	t.Helper()
	r, err := c.Service.Recovery(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func cases(r control.Recovery) string {
	var out []string
	for _, v := range r.Plan.VMs {
		out = append(out, v.Name+" "+string(v.Case)+" "+string(v.Action))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// history makes a, b and q on n1, keeps the database as of then, and goes on: a is
// restarted, gets a disk, b is deleted, d is made.
func history(t *testing.T, c *controltest.Cluster) *storetest.Past {
	t.Helper()
	for _, name := range []string{"a", "b", "q"} {
		create(t, c, name, "n1")
	}
	// a job that had been accepted and not begun when the backup was made
	if err := ask(t, c, "q", vm.Restart); err != nil {
		t.Fatal(err)
	}
	past := c.DB.Save(t)
	drive(t, c, nil)
	drive(t, c, ask(t, c, "a", vm.Stop))
	_, err := c.Service.AddDisk(t.Context(), controltest.Admin(), "a", vm.DiskSpec{SizeBytes: 32 << 20})
	drive(t, c, err)
	drive(t, c, ask(t, c, "a", vm.Start))
	drive(t, c, ask(t, c, "b", vm.Delete))
	create(t, c, "d", "n1")
	return past
}

// An older database is put back: everything is held, what runs is adopted, nothing
// is started or stopped by that, and afterwards everything can be worked with.
func TestRecoveryFromAnOlderDatabase(t *testing.T) {
	c := controltest.New(t, 2)
	past := history(t, c)
	running := c.Running()
	marked(t, c, past)

	// held: no change, whatever the database believes
	for name, r := range map[string]vm.Request{"a": vm.Stop, "b": vm.Delete, "q": vm.Start} {
		if err := ask(t, c, name, r); !errs.Is(err, errs.RecoveryHold) {
			t.Errorf("%s %s: %v", r, name, err)
		}
	}
	if _, err := c.Service.CreateVM(t.Context(), controltest.Admin(), c.NewVM("fresh", false)); !errs.Is(err, errs.RecoveryHold) {
		t.Errorf("create: %v", err)
	}
	if _, err := c.Service.DeleteImage(t.Context(), controltest.Admin(), "tiny"); !errs.Is(err, errs.RecoveryHold) {
		t.Errorf("delete an image: %v", err)
	}
	execute(t, c)
	until(t, "the old job waits and says why", func() bool {
		jobs, _, err := c.Service.Jobs(t.Context(), store.Page{Limit: 100, Filters: map[string]string{"state": "waiting"}})
		return err == nil && len(jobs) == 1 && strings.Contains(jobs[0].WaitReason, "novacron recovery confirm")
	})
	r := shown(t, c)
	if got, want := cases(r), "a changed adopt, b missing lose, d unknown adopt, q changed adopt"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	if len(r.Plan.Jobs) != 1 || r.Plan.Jobs[0].Action != recovery.End {
		t.Errorf("jobs: %+v", r.Plan.Jobs)
	}

	// another plan than the one that was shown is refused
	if _, err := c.Service.ConfirmRecovery(t.Context(), controltest.Admin(), "0000", nil, nil); !errs.Is(err, errs.RevisionMismatch) {
		t.Errorf("another plan: %v", err)
	}
	after, err := c.Service.ConfirmRecovery(t.Context(), controltest.Admin(), r.Plan.ID, nil, nil)
	if err != nil || after.Held() {
		t.Fatalf("%+v %v", after, err)
	}
	if again, err := c.Service.ConfirmRecovery(t.Context(), controltest.Admin(), r.Plan.ID, nil, nil); err != nil || again.Recovery.Plan != r.Plan.ID {
		t.Errorf("confirmed twice: %+v %v", again, err)
	}
	if now := c.Running(); !slices.Equal(now, running) {
		t.Errorf("the recovery changed what runs: %v, before %v", now, running)
	}

	// all is as it really is, and can be worked with
	state := map[string]vm.State{}
	for _, v := range views(t, c) {
		state[v.Intent.Name] = vm.Appear(v).State
		if v.Intent.Name == "a" && len(v.Volumes) != 3 {
			t.Errorf("a has %d disks", len(v.Volumes))
		}
	}
	if state["a"] != vm.Running || state["b"] != vm.Failed || state["d"] != vm.Running || state["q"] != vm.Running {
		t.Errorf("%v", state)
	}
	for _, step := range []struct {
		name string
		r    vm.Request
	}{{"a", vm.Stop}, {"a", vm.Start}, {"d", vm.Stop}, {"q", vm.Restart}, {"b", vm.Delete}, {"d", vm.Delete}} {
		drive(t, c, ask(t, c, step.name, step.r))
	}
	left, err := c.Leftovers(t.Context())
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
	jobs, _, err := c.Service.Jobs(t.Context(), store.Page{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		if j.State != "succeeded" && j.State != "cancelled" {
			t.Errorf("job %s of %s is %s: %s", j.Kind, j.TargetName, j.State, j.ErrorMessage)
		}
	}
}

// A database from before a move is put back: the two nodes tell together where the VM is
// now, and it goes on there.
func TestRecoveryFromBeforeAMove(t *testing.T) {
	c := onFirst(t)
	past := c.DB.Save(t)
	_, err := migrate(t, c, "a", "n2")
	drive(t, c, err)
	drive(t, c, ask(t, c, "a", vm.Start))
	running := c.Running()
	marked(t, c, past)
	r := shown(t, c)
	if got, want := cases(r), "a changed adopt"; got != want {
		t.Fatalf("%s, want %s: %+v", got, want, r.Plan.VMs)
	}
	if _, err := c.Service.ConfirmRecovery(t.Context(), controltest.Admin(), r.Plan.ID, nil, nil); err != nil {
		t.Fatal(err)
	}
	if v := isOn(t, c, "a", "n2"); v.Intent.Lost != nil || vm.Appear(v).State != vm.Running || !slices.Equal(c.Running(), running) {
		t.Errorf("%+v, %v run, before %v", v.Intent, c.Running(), running)
	}
	drive(t, c, ask(t, c, "a", vm.Stop))
	_, err = migrate(t, c, "a", "n1")
	drive(t, c, err)
	isOn(t, c, "a", "n1")
	clean(t, c)
}

// A node that knows more than the database, without any restore that we made, is
// held by itself: what is on other nodes goes on.
func TestOneNodeAheadIsHeldAlone(t *testing.T) {
	c := controltest.New(t, 4)
	create(t, c, "a", "n1")
	create(t, c, "other", "n2")
	past := c.DB.Save(t)
	drive(t, c, ask(t, c, "a", vm.Stop))
	drive(t, c, ask(t, c, "a", vm.Start))
	create(t, c, "d", "n1")
	running := c.Running()
	for _, n := range c.Nodes {
		if err := c.Service.Look(t.Context(), n.ID); err != nil || c.Service.Holds().Held(n.ID) {
			t.Fatalf("%s before: %v", n.Name, err)
		}
	}
	past.PutBack(t, nil)
	for _, n := range c.Nodes {
		if err := c.Service.Look(t.Context(), n.ID); err != nil {
			t.Fatal(err)
		}
	}
	if r := c.Service.Holds().Now(); r.Cause != "" || len(r.Nodes) != 1 || r.Nodes[0].Name != "n1" {
		t.Fatalf("%+v", r)
	}
	if err := ask(t, c, "a", vm.Stop); !errs.Is(err, errs.RecoveryHold) {
		t.Errorf("stop on the held node: %v", err)
	}
	drive(t, c, ask(t, c, "other", vm.Restart))
	n := c.NewVM("placed", false)
	_, err := c.Service.CreateVM(t.Context(), controltest.Admin(), n)
	drive(t, c, err)
	if v, err := c.Service.VM(t.Context(), "placed"); err != nil || *v.Intent.NodeID == c.Nodes[0].ID {
		t.Errorf("placed on the held node: %v", err)
	}
	var records int
	if err := c.DB.App.QueryRow(t.Context(), "SELECT count(*) FROM audit_log WHERE action = 'recovery.hold' AND object_name = 'n1'").Scan(&records); err != nil || records != 1 {
		t.Errorf("%d audit records, %v", records, err)
	}

	// an operator leaves what the node made up, or did not
	r := shown(t, c)
	if got, want := cases(r), "a changed adopt, d unknown adopt"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	var d id.ID
	for _, v := range r.Plan.VMs {
		if v.Name == "d" {
			d = v.VM
		}
	}
	if _, err := c.Service.ConfirmRecovery(t.Context(), controltest.Admin(), r.Plan.ID, []id.ID{id.New()}, nil); !errs.Is(err, errs.InvalidField) {
		t.Errorf("adopt what is not there: %v", err)
	}
	after, err := c.Service.ConfirmRecovery(t.Context(), controltest.Admin(), r.Plan.ID, nil, []id.ID{d})
	if err != nil || after.Held() || len(after.Left) != 1 {
		t.Fatalf("%+v %v", after, err)
	}
	if now := c.Running(); !slices.Equal(now, running) {
		t.Errorf("what runs: %v, before %v", now, running)
	}
	// what was left is no evidence any more
	if err := c.Service.Look(t.Context(), c.Nodes[0].ID); err != nil || c.Service.Holds().Held(c.Nodes[0].ID) {
		t.Errorf("held again: %v", err)
	}
	drive(t, c, ask(t, c, "a", vm.Stop))
}

// Reports of a later epoch hold the node that sends them, and nobody else; of
// another node's VM they change nothing.
func TestInventedEpochs(t *testing.T) {
	c := controltest.New(t, 2)
	create(t, c, "a", "n1")
	create(t, c, "b", "n2")
	report := func(n *controltest.Node, name string) nodelink.Result {
		v, err := c.Service.VM(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := c.Service.Reports(t.Context(), n.ID, 1, []nodelink.Report{{VM: v.Intent.ID, Epoch: v.Intent.Epoch + 5, Seq: 1 << 50, Phase: vm.PhaseRunning}})
		if err != nil {
			t.Fatal(err)
		}
		return reply.Results[0]
	}
	if got := report(c.Nodes[1], "a"); got != nodelink.NotPlaced || c.Service.Holds().Now().Held() {
		t.Fatalf("of another node's VM: %s, %+v", got, c.Service.Holds().Now())
	}
	if got := report(c.Nodes[1], "b"); got != nodelink.Ahead {
		t.Errorf("of its own: %s", got)
	}
	if r := c.Service.Holds().Now(); r.Cause != "" || len(r.Nodes) != 1 || r.Nodes[0].Name != "n2" {
		t.Errorf("%+v", r)
	}
	drive(t, c, ask(t, c, "a", vm.Stop))
	// two of two cannot both be wrong
	report(c.Nodes[0], "a")
	if r := c.Service.Holds().Now(); r.Cause != store.CauseNodes {
		t.Errorf("%+v", r)
	}
}

// To a server on an older copy of the database no node comes; to one on a restored
// database every node does, and is told.
func TestFollowing(t *testing.T) {
	c := controltest.New(t, 1)
	past := c.DB.Save(t)
	hello := nodelink.Hello{Node: c.Nodes[0].ID, NodeEpoch: 9, Protocol: nodelink.Protocol, Cluster: id.New()}
	if _, err := c.Service.Hello(t.Context(), hello, make([]byte, 32)); !errs.Is(err, errs.Conflict) {
		t.Errorf("another incarnation: %v", err)
	}
	marked(t, c, past)
	w, err := c.Service.Hello(t.Context(), hello, make([]byte, 32))
	if err != nil || !slices.Contains(w.Follows, hello.Cluster) {
		t.Errorf("%+v %v", w, err)
	}
	// a node that joined after the backup is taken back, and takes no new VMs yet
	hello.Node, hello.Name = id.New(), "later"
	if _, err := c.Service.Hello(t.Context(), hello, []byte(strings.Repeat("k", 32))); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Service.Node(t.Context(), "later"); err != nil || n.ID != hello.Node || n.State != "cordoned" {
		t.Errorf("%+v %v", n, err)
	}
}
