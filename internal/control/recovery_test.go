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
