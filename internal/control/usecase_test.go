package control_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

type alone struct{ id id.ID }

// ID implements workflow.Membership.
func (a alone) ID() id.ID { return a.id }

// Dead implements workflow.Membership.
func (alone) Dead(id.ID) bool { return false }

// Bind implements workflow.Membership.
func (alone) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}

// execute runs jobs until the test ends.
func execute(t *testing.T, c *controltest.Cluster) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	e := workflow.New(workflow.Options{
		Pool: c.DB.App, Members: alone{id.New()}, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler), Flows: flows.Bound(c.Env),
		Poll: 20 * time.Millisecond,
	})
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// until looks again and again until a state is there.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !is() {
		if (clock.System{}).Sleep(ctx, 5*time.Millisecond) != nil {
			t.Fatalf("never: %s", what)
		}
	}
}

func views(t *testing.T, c *controltest.Cluster) []vm.View {
	t.Helper()
	vs, _, err := c.Service.VMs(t.Context(), store.Page{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return vs
}

// drive runs what was accepted to its end.
func drive(t *testing.T, c *controltest.Cluster, err error) {
	t.Helper()
	if err == nil {
		err = c.Drive(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func clean(t *testing.T, c *controltest.Cluster) {
	t.Helper()
	left, err := c.Leftovers(t.Context())
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// Many creations at the edge of what the nodes have: exactly what fits is placed,
// and the others wait and say why of every node.
func TestEdgeOfCapacity(t *testing.T) {
	c := controltest.New(t, 2)
	const per, asked = 3, 10 // three of 20 CPUs on each node of 64
	execute(t, c)
	var wg sync.WaitGroup
	for i := range asked {
		wg.Go(func() {
			n := c.NewVM(fmt.Sprintf("vm-%d", i), true)
			n.CPUs = 20
			if _, err := c.Service.CreateVM(t.Context(), controltest.Admin(), n); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	count := func() (running, pending int) {
		for _, v := range views(t, c) {
			switch a := vm.Appear(v); a.State {
			case vm.Running:
				running++
			case vm.Pending:
				if p := v.Intent.Placement; p != nil && len(p.Nodes) == 2 && len(p.Nodes[0].Reasons) > 0 && a.Reason != "" {
					pending++
				}
			}
		}
		return running, pending
	}
	until(t, "what fits runs, and the others say why they wait", func() bool {
		running, pending := count()
		return running == 2*per && pending == asked-2*per
	})
	nodes, _, err := c.Service.Nodes(t.Context(), store.Page{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.Used.CPUs != per*20 || n.VMs != per {
			t.Errorf("%s: %d CPUs, %d VMs", n.Name, n.Used.CPUs, n.VMs)
		}
	}
	clean(t, c)
}

// Of requests on one VM at once, one gets the job, and the others are told which.
func TestOneJobPerVM(t *testing.T) {
	c := controltest.New(t, 1)
	_, err := c.Service.CreateVM(t.Context(), controltest.Admin(), c.NewVM("a", true))
	drive(t, c, err)
	var mu sync.Mutex
	var won []id.ID
	busy := map[string]int{}
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			r := []vm.Request{vm.Stop, vm.Pause, vm.Restart, vm.Delete}[i%4]
			a, err := c.Service.AskVM(t.Context(), controltest.Admin(), "a", r, control.Stop{})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won = append(won, *a.Job)
			case errs.Is(err, errs.VMBusy):
				busy[errs.As(err).Job]++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 || len(busy) != 1 || busy[won[0].String()] != 23 {
		t.Errorf("won %v, busy %v", won, busy)
	}
	drive(t, c, nil)
	clean(t, c)
}

// One key is one VM, however many ask at once; for another request it is refused.
func TestIdempotencyKeyRaced(t *testing.T) {
	c := controltest.New(t, 1)
	who := controltest.Admin()
	who.Key, who.Hash = "key", control.HashRequest("POST", "/api/v1/vms", []byte("a"))
	answers := make([]control.Accepted, 24)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			var err error
			if answers[i], err = c.Service.CreateVM(t.Context(), who, c.NewVM("a", true)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, a := range answers {
		if a.Job == nil || answers[0].Job == nil || a.Object != answers[0].Object || *a.Job != *answers[0].Job {
			t.Errorf("answers differ: %+v %+v", a, answers[0])
		}
	}
	if vs := views(t, c); len(vs) != 1 {
		t.Errorf("%d VMs", len(vs))
	}
	who.Hash = control.HashRequest("POST", "/api/v1/vms", []byte("b"))
	if _, err := c.Service.CreateVM(t.Context(), who, c.NewVM("b", true)); !errs.Is(err, errs.IdempotencyReuse) {
		t.Errorf("the key for another request: %v", err)
	}
	who.Key = ""
	if _, err := c.Service.CreateVM(t.Context(), who, c.NewVM("a", true)); !errs.Is(err, errs.AlreadyExists) {
		t.Errorf("the name without a key: %v", err)
	}
	drive(t, c, nil)
	clean(t, c)
}

// A cordoned node keeps what it has and gets nothing new; a node with VMs is not
// removed, and says which.
func TestCordonAndRemove(t *testing.T) {
	c := controltest.New(t, 2)
	for i := range 2 {
		_, err := c.Service.CreateVM(t.Context(), controltest.Admin(), func() control.NewVM {
			n := c.NewVM(fmt.Sprintf("old-%d", i), true)
			n.Node = "n1"
			return n
		}())
		drive(t, c, err)
	}
	if _, err := c.Service.SetNode(t.Context(), controltest.Admin(), "n1", node.Cordoned, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		_, err := c.Service.CreateVM(t.Context(), controltest.Admin(), c.NewVM(fmt.Sprintf("new-%d", i), false))
		drive(t, c, err)
	}
	on := map[string]int{}
	for _, v := range views(t, c) {
		on[v.Node.Name]++
	}
	if on["n1"] != 2 || on["n2"] != 4 {
		t.Errorf("placed %v", on)
	}
	_, err := c.Service.SetNode(t.Context(), controltest.Admin(), "n1", node.Removed, nil)
	if !errs.Is(err, errs.InUse) || !slices.Equal(errs.As(err).Blockers, []string{"old-0", "old-1"}) {
		t.Errorf("a node with VMs: %v, blocked by %v", err, errs.As(err).Blockers)
	}
	if n, err := c.Service.Node(t.Context(), "n1"); err != nil || n.VMs != 2 || n.State != node.Cordoned {
		t.Errorf("%+v %v", n, err)
	}
	for i := range 2 {
		_, err := c.Service.AskVM(t.Context(), controltest.Admin(), fmt.Sprintf("old-%d", i), vm.Delete, control.Stop{})
		drive(t, c, err)
	}
	if _, err := c.Service.SetNode(t.Context(), controltest.Admin(), "n1", node.Removed, nil); err != nil {
		t.Errorf("an empty node stays: %v", err)
	}
	if _, err := c.Service.Node(t.Context(), "n1"); !errs.Is(err, errs.NotFound) {
		t.Errorf("after the removal: %v", err)
	}
	clean(t, c)
}

// To delete a VM that waits for a node is to cancel its creation.
func TestDeleteOfAPendingVM(t *testing.T) {
	c := controltest.New(t, 1)
	if _, err := c.Service.SetNode(t.Context(), controltest.Admin(), "n1", node.Cordoned, nil); err != nil {
		t.Fatal(err)
	}
	execute(t, c)
	made, err := c.Service.CreateVM(t.Context(), controltest.Admin(), c.NewVM("a", true))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it says why it waits", func() bool {
		v, err := c.Service.VM(t.Context(), "a")
		return err == nil && v.Intent.Placement != nil
	})
	gone, err := c.Service.AskVM(t.Context(), controltest.Admin(), "a", vm.Delete, control.Stop{})
	if err != nil || gone.Job == nil || *gone.Job != *made.Job {
		t.Fatalf("delete: %+v %v, the creation is %v", gone, err, made.Job)
	}
	until(t, "the creation is cancelled", func() bool {
		j, err := c.Service.Job(t.Context(), *made.Job)
		return err == nil && j.State == job.Cancelled
	})
	if _, err := c.Service.VM(t.Context(), "a"); !errs.Is(err, errs.NotFound) {
		t.Errorf("the VM: %v", err)
	}
	clean(t, c)
}

// A change on top of what somebody else changed is refused, and changes nothing.
func TestStaleRevisions(t *testing.T) {
	c := controltest.New(t, 1)
	_, err := c.Service.CreateVM(t.Context(), controltest.Admin(), c.NewVM("a", true))
	drive(t, c, err)
	v, err := c.Service.VM(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	was := int64(v.Intent.Revision)
	label := func(value string) error {
		who := controltest.Admin()
		who.Revision = &was
		_, err := c.Service.UpdateVM(t.Context(), who, "a", vm.Change{Labels: &map[string]string{"k": value}})
		return err
	}
	if err := label("first"); err != nil {
		t.Fatal(err)
	}
	if err := label("second"); !errs.Is(err, errs.RevisionMismatch) {
		t.Errorf("labels: %v", err)
	}
	who := controltest.Admin()
	who.Revision = &was
	if _, err := c.Service.AskVM(t.Context(), who, "a", vm.Delete, control.Stop{}); !errs.Is(err, errs.RevisionMismatch) {
		t.Errorf("delete: %v", err)
	}
	v, err = c.Service.VM(t.Context(), "a")
	if err != nil || v.Intent.Labels["k"] != "first" || v.Job != nil {
		t.Errorf("%+v %v", v.Intent, err)
	}
	now := int64(v.Intent.Revision)
	who.Revision = &now
	if _, err := c.Service.AskVM(t.Context(), who, "a", vm.Pause, control.Stop{}); err != nil {
		t.Errorf("pause: %v", err)
	}
}

// What a guest's process wrote cannot hold up its node's reports.
func TestReasonsOfAnyBytes(t *testing.T) {
	c := controltest.New(t, 1)
	_, err := c.Service.CreateVM(t.Context(), controltest.Admin(), c.NewVM("a", true))
	drive(t, c, err)
	v, err := c.Service.VM(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Service.Reports(t.Context(), *v.Intent.NodeID, 1, []nodelink.Report{{
		VM: v.Intent.ID, Epoch: v.Intent.Epoch, Seq: 1 << 60, Phase: vm.PhaseCrashed, Reason: "qemu: \x00\x1b[31m" + string(bytes.Repeat([]byte("x"), 1<<16)),
	}})
	if err != nil || len(out.Results) != 1 || out.Results[0] != nodelink.Applied {
		t.Fatalf("%+v %v", out, err)
	}
	if v, err = c.Service.VM(t.Context(), "a"); err != nil || vm.Appear(v).State != vm.Failed || len(vm.Appear(v).Reason) > 2000 {
		t.Errorf("%+v %v", vm.Appear(v), err)
	}
}

// Of two uploads of one file at once, one is taken, and the image is whole.
func TestUploadsRaced(t *testing.T) {
	c := controltest.New(t, 1)
	if _, err := c.Service.CreateImage(t.Context(), controltest.Admin(), "os", image.Disk, ""); err != nil {
		t.Fatal(err)
	}
	const n = 6
	failures := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			body := bytes.Repeat([]byte{byte(i)}, 4096)
			_, failures[i] = c.Service.PutImageFile(t.Context(), controltest.Admin(), "os", image.RoleDisk, "", bytes.NewReader(body))
		})
	}
	wg.Wait()
	taken := 0
	for _, err := range failures {
		if err == nil {
			taken++
		} else if !errs.Is(err, errs.InvalidState) && !errs.Is(err, errs.AlreadyExists) {
			t.Error(err)
		}
	}
	i, err := c.Service.Image(t.Context(), "os")
	if taken != 1 || err != nil || i.State != image.Ready || len(i.Files) != 1 {
		t.Fatalf("%d were taken: %+v %v", taken, i, err)
	}
	f, err := c.Images.Open(i.Files[0].SHA256)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}
