package control_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func update(t *testing.T, c *controltest.Cluster, name string, change vm.Change) error {
	t.Helper()
	_, err := c.Service.UpdateVM(t.Context(), controltest.Admin(), name, change)
	return err
}

func make1(t *testing.T, c *controltest.Cluster, n control.NewVM) {
	t.Helper()
	_, err := c.Service.CreateVM(t.Context(), controltest.Admin(), n)
	drive(t, c, err)
}

func request(t *testing.T, c *controltest.Cluster, name string, r vm.Request) {
	t.Helper()
	_, err := c.Service.AskVM(t.Context(), controltest.Admin(), name, r, control.Stop{})
	drive(t, c, err)
}

// A VM may be renamed while it runs and while a job holds it: nothing on its host
// knows the name.
func TestRename(t *testing.T) {
	c := controltest.New(t, 1)
	make1(t, c, c.NewVM("a", true))
	make1(t, c, c.NewVM("b", false))
	before := c.Running()
	if err := update(t, c, "a", vm.Change{Name: new("b")}); !errs.Is(err, errs.AlreadyExists) || errs.As(err).Fields[0].Pointer != "/name" {
		t.Errorf("a taken name: %v", err)
	}
	if err := update(t, c, "a", vm.Change{Name: new("c")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Service.VM(t.Context(), "a"); !errs.Is(err, errs.NotFound) {
		t.Errorf("the old name: %v", err)
	}
	if _, err := c.Service.AskVM(t.Context(), controltest.Admin(), "c", vm.Restart, control.Stop{}); err != nil {
		t.Fatal(err)
	}
	if err := update(t, c, "c", vm.Change{Name: new("d")}); err != nil {
		t.Errorf("while a job holds it: %v", err)
	}
	drive(t, c, nil)
	v, err := c.Service.VM(t.Context(), "d")
	if err != nil || vm.Appear(v).State != vm.Running || v.Job != nil {
		t.Errorf("%+v %v", v, err)
	}
	if after := c.Running(); len(before) != 1 || len(after) != 1 || after[0] != before[0] {
		t.Errorf("before run %v, afterwards %v", before, after)
	}
	var told, recorded int
	err = c.DB.App.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM events WHERE kind = 'vm.updated' AND data ? 'renamed_from'),
		(SELECT count(*) FROM audit_log WHERE action = 'vm.update' AND detail->'name' ? 'to')`).Scan(&told, &recorded)
	if err != nil || told != 2 || recorded != 2 {
		t.Errorf("%d events, %d records of two renamings: %v", told, recorded, err)
	}
	request(t, c, "d", vm.Delete)
	clean(t, c)
}

// Of many that take one name at once, one gets it.
func TestRenameRaced(t *testing.T) {
	c := controltest.New(t, 1)
	const n = 8
	for i := range n {
		make1(t, c, c.NewVM(fmt.Sprint("vm-", i), false))
	}
	var mu sync.Mutex
	var won int
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			err := update(t, c, fmt.Sprint("vm-", i), vm.Change{Name: new("best")})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errs.Is(err, errs.AlreadyExists) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d VMs got one name", won)
	}
}

// A stopped VM gets another size, and what its node counts is right when it runs
// again. A running one does not, and a change that is refused in part is refused
// whole.
func TestResize(t *testing.T) {
	c := controltest.New(t, 1)
	make1(t, c, c.NewVM("a", true))
	bigger := vm.Change{Name: new("renamed"), CPUs: new(4), MemoryBytes: new(128 * unit.MiB)}
	if err := update(t, c, "a", bigger); !errs.Is(err, errs.InvalidState) || !strings.Contains(err.Error(), "it is running; stop it first") {
		t.Errorf("running: %v", err)
	}
	request(t, c, "a", vm.Stop)
	if err := update(t, c, "a", bigger); err != nil {
		t.Fatal(err)
	}
	request(t, c, "renamed", vm.Start)
	n, err := c.Service.Node(t.Context(), "n1")
	if err != nil || n.Used.CPUs != 4 || n.Used.MemoryBytes != 128*unit.MiB {
		t.Errorf("%+v %v", n.Used, err)
	}
	if len(c.Running()) != 1 {
		t.Errorf("run %v", c.Running())
	}
	request(t, c, "renamed", vm.Stop)
	clean(t, c)
}

// A stopped VM does not get more than its node has left; it may always get less,
// and keep what it has.
func TestResizeNeedsRoom(t *testing.T) {
	c := controltest.New(t, 1)
	small := c.NewVM("small", false)
	small.CPUs = 20
	make1(t, c, small)
	big := c.NewVM("big", true)
	big.CPUs = 50
	make1(t, c, big)
	for what, change := range map[string]vm.Change{
		"more than is free now": {CPUs: new(30)}, "more than the node has": {CPUs: new(65)}, "memory": {MemoryBytes: new(65 * unit.GiB)},
	} {
		err := update(t, c, "small", change)
		if !errs.Is(err, errs.NoNodeFits) || !strings.Contains(err.Error(), "n1") || !strings.Contains(err.Error(), "needed") {
			t.Errorf("%s: %v", what, err)
		}
	}
	v, err := c.Service.VM(t.Context(), "small")
	if err != nil || v.Intent.CPUs != 20 || v.Intent.MemoryBytes != 64*unit.MiB {
		t.Errorf("%+v %v", v.Intent, err)
	}
	// 14 of 64 CPUs are free: 18 are less than before, though still too many
	if err := update(t, c, "small", vm.Change{CPUs: new(18), MemoryBytes: new(128 * unit.MiB)}); err != nil {
		t.Errorf("fewer CPUs: %v", err)
	}
	clean(t, c)
}

// A guest that powered itself off would be started again by its node after a
// reboot, as it was. Stopping the VM makes the end final, and gives its room back.
func TestResizeOfWhatEndedByItself(t *testing.T) {
	c := controltest.New(t, 1)
	make1(t, c, c.NewVM("a", true))
	v, err := c.Service.VM(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	n := c.Nodes[0]
	if !n.Host.(*controltest.SimHost).PowerOff(v.Intent.ID) {
		t.Fatal("there is no guest to power off")
	}
	out, err := c.Service.Reports(t.Context(), n.ID, 1, []nodelink.Report{{
		VM: v.Intent.ID, Epoch: v.Intent.Epoch, Seq: 1 << 60, Phase: vm.PhaseExited,
	}})
	if err != nil || out.Results[0] != nodelink.Applied {
		t.Fatal(out, err)
	}
	if err := update(t, c, "a", vm.Change{CPUs: new(2)}); !errs.Is(err, errs.InvalidState) || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("%v", err)
	}
	request(t, c, "a", vm.Stop)
	if err := update(t, c, "a", vm.Change{CPUs: new(2)}); err != nil {
		t.Error(err)
	}
	if err := n.Reboot(t.Context()); err != nil || len(c.Running()) != 0 {
		t.Errorf("after the reboot run %v, %v", c.Running(), err)
	}
	if nodes, _, err := c.Service.Nodes(t.Context(), store.Page{Limit: 1}); err != nil || nodes[0].Used.CPUs != 0 {
		t.Errorf("%+v %v", nodes, err)
	}
	clean(t, c)
}
