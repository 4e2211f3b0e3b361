package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/volume/pool"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// sharing makes a cluster of two nodes that have a pool, with a VM "a" on the first whose
// second disk is in it.
func sharing(t *testing.T, start bool) *controltest.Cluster {
	t.Helper()
	c := controltest.NewSharing(t, 2)
	n := c.NewVM("a", start)
	n.Node = "n1"
	make1(t, c, n)
	return c
}

// shared gives the disk in the pool, and its claim.
func shared(t *testing.T, c *controltest.Cluster) (vm.Volume, *pool.Claim) {
	t.Helper()
	d := view(t, c, "a").Volumes[1]
	now, err := c.Claim(d.ID)
	if err != nil || d.PoolName != controltest.SharedPool {
		t.Fatalf("%+v: %v", d, err)
	}
	return d, now
}

// hasIt expects that a node may write the disk under the VM's epoch.
func hasIt(t *testing.T, c *controltest.Cluster, n *controltest.Node) {
	t.Helper()
	_, now := shared(t, c)
	if now == nil || !now.Held || now.Node != n.ID || now.Epoch != view(t, c, "a").Intent.Epoch {
		t.Errorf("the claim is %+v, want that of %s under %d", now, n.Name, view(t, c, "a").Intent.Epoch)
	}
}

// steal makes the disk another node's, as if an owner had changed without anybody's telling.
func steal(t *testing.T, c *controltest.Cluster, over gen.OwnerEpoch) {
	t.Helper()
	d, now := shared(t, c)
	if now == nil {
		now = &pool.Claim{Volume: d.ID, VM: view(t, c, "a").Intent.ID}
	}
	now.Node, now.Epoch, now.Held = id.New(), now.Epoch+over, true
	b, err := json.Marshal(now)
	if err == nil {
		err = os.WriteFile(filepath.Join(c.Shared(), "claims", d.ID.String()+".json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDisksInAPool(t *testing.T) {
	c := sharing(t, true)
	hasIt(t, c, c.Nodes[0])
	ask1(t, c, vm.Stop)
	if _, now := shared(t, c); now.Held {
		t.Errorf("a VM that was stopped holds %+v", now)
	}
	for ref, want := range map[string]errs.Code{"none-such": errs.InvalidField} {
		_, err := c.Service.AddDisk(t.Context(), controltest.Admin(), "a", vm.DiskSpec{SizeBytes: 1 << 20, Pool: ref})
		if !errs.Is(err, want) {
			t.Errorf("a disk in pool %s: %v", ref, err)
		}
	}
	_, err := c.Service.AddDisk(t.Context(), controltest.Admin(), "a", vm.DiskSpec{SizeBytes: 1 << 20, Pool: controltest.SharedPool})
	drive(t, c, err)
	if d := view(t, c, "a").Volumes; len(d) != 3 || d[2].PoolName != controltest.SharedPool {
		t.Errorf("disks: %+v", d)
	}
	ask1(t, c, vm.Delete)
	clean(t, c)
	if p, err := c.Service.Pool(t.Context(), controltest.SharedPool); err != nil || p.UsedBytes != 0 {
		t.Errorf("%+v %v", p, err)
	}
}

func ask1(t *testing.T, c *controltest.Cluster, r vm.Request) {
	t.Helper()
	drive(t, c, asked(t, c, r).err)
}

// answer is what came of a request about VM "a".
type answer struct {
	job *id.ID
	err error
}

func asked(t *testing.T, c *controltest.Cluster, r vm.Request) answer {
	t.Helper()
	a, err := c.Service.AskVM(t.Context(), controltest.Admin(), "a", r, control.Stop{})
	return answer{a.Job, err}
}

// A node without the pool is passed over by name, for a new VM and for one that moves.
func TestNodeWithoutThePool(t *testing.T) {
	c := sharing(t, false)
	epoch, err := c.Store.NodeEpoch(t.Context(), c.Nodes[1].ID)
	if err == nil {
		err = c.Service.NodePools(t.Context(), c.Nodes[1].ID, epoch, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := migrate(t, c, "a", "n2"); !errs.Is(err, errs.NoNodeFits) || !strings.Contains(err.Error(), "has no pool shared") {
		t.Errorf("moved to a node without the pool: %v", err)
	}
	execute(t, c)
	n := c.NewVM("b", false)
	n.Node = "n2"
	if _, err := c.Service.CreateVM(t.Context(), controltest.Admin(), n); err != nil {
		t.Fatal(err)
	}
	until(t, "the reason is told", func() bool {
		p := view(t, c, "b").Intent.Placement
		return p != nil && strings.Contains(p.Summary, "has no pool shared")
	})
}

// What is in a pool is not copied, cold or live, and the claim goes with the owner.
func TestMoveOfDisksInAPool(t *testing.T) {
	for _, start := range []bool{false, true} {
		c := sharing(t, start)
		plan, err := c.Service.PlanMigration(t.Context(), controltest.Admin(), "a", migration.Request{})
		v := view(t, c, "a")
		want := v.Volumes[0].SizeBytes
		if start {
			want += v.Intent.MemoryBytes
		}
		if err != nil || plan.Bytes != want || len(plan.Disks) != 2 {
			t.Fatalf("plan %+v, %v; want %d bytes", plan, err, want)
		}
		_, before := shared(t, c)
		_, err = migrate(t, c, "a", "n2")
		drive(t, c, err)
		isOn(t, c, "a", "n2")
		if start {
			hasIt(t, c, c.Nodes[1])
		} else {
			ask1(t, c, vm.Start)
			hasIt(t, c, c.Nodes[1])
		}
		if _, now := shared(t, c); before != nil && now.Epoch <= before.Epoch {
			t.Errorf("the epoch was %d and is %d", before.Epoch, now.Epoch)
		}
		ask1(t, c, vm.Delete)
		clean(t, c)
	}
}

// A node whose disk another one has by now does not start it.
func TestStaleNodeDoesNotStart(t *testing.T) {
	for over, code := range map[gen.OwnerEpoch]errs.Code{5: errs.StaleEpoch, 0: errs.InUse} {
		c := sharing(t, true)
		ask1(t, c, vm.Stop)
		steal(t, c, over)
		a := asked(t, c, vm.Start)
		drive(t, c, a.err)
		jobIs(t, c, a.job, job.Failed, code)
		if len(c.Running()) > 0 {
			t.Errorf("it runs: %v", c.Running())
		}
	}
}

// Neither does the record of a host that was away, after a reboot.
func TestStaleNodeDoesNotStartAfterAReboot(t *testing.T) {
	c := sharing(t, true)
	n := c.Nodes[0]
	if err := n.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(c.Running()) != 1 {
		t.Fatalf("after a reboot: %v", c.Running())
	}
	steal(t, c, 1)
	if err := n.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(c.Running()) > 0 {
		t.Errorf("it runs: %v", c.Running())
	}
}

// A source whose target gave up goes on only where its disks are still its own.
func TestSourceThatLostItsDisksDoesNotGoOn(t *testing.T) {
	c := sharing(t, true)
	c.Swapping = func(*controltest.Node) error {
		if _, now := shared(t, c); now.Node == c.Nodes[0].ID {
			steal(t, c, 7)
		}
		return errors.New("nobody answers")
	}
	a, err := migrate(t, c, "a", "n2")
	drive(t, c, err)
	jobIs(t, c, a.Job, job.Failed, errs.HostFailure)
	if len(c.Running()) > 0 {
		t.Errorf("it runs: %v", c.Running())
	}
	ask1(t, c, vm.Stop) // by which its node says how it is
	if v := view(t, c, "a"); v.Observed == nil || v.Observed.Phase != vm.PhaseCrashed || !strings.Contains(v.Observed.Reason, "does not go on here") {
		t.Errorf("observed: %+v", v.Observed)
	}
}

// A target that is refused the disks does not execute, though it owns the VM.
func TestTargetThatIsRefusedDoesNotExecute(t *testing.T) {
	c := sharing(t, true)
	c.Swapped = func(*controltest.Node) error {
		if _, now := shared(t, c); now.Node == c.Nodes[0].ID {
			steal(t, c, 7)
		}
		return nil
	}
	_, err := migrate(t, c, "a", "n2")
	drive(t, c, err)
	if len(c.Running()) > 0 {
		t.Errorf("it runs: %v", c.Running())
	}
	isOn(t, c, "a", "n2")
	if v := view(t, c, "a"); v.Observed == nil || v.Observed.Phase != vm.PhaseCrashed || !strings.Contains(v.Observed.Reason, "is owned under epoch") {
		t.Errorf("observed: %+v", v.Observed)
	}
}

// What a VM has in a pool is not lost with its node: it says so, and goes when the VM is
// deleted, by another node.
func TestPoolOutlivesItsNode(t *testing.T) {
	c := sharing(t, true)
	d, _ := shared(t, c)
	c.Nodes[0].SetDown(true)
	if _, err := c.Service.RemoveNodeByForce(t.Context(), controltest.Admin(), "n1", nil); err != nil {
		t.Fatal(err)
	}
	if a := vm.Appear(view(t, c, "a")); a.State != vm.Failed || !strings.Contains(a.Reason, "its disks in storage pool shared are kept") {
		t.Errorf("appears %+v", a)
	}
	if _, err := c.Nodes[1].Disk(context.Background(), d); err != nil {
		t.Errorf("the disk: %v", err)
	}
	ask1(t, c, vm.Delete)
	if _, err := c.Nodes[1].Disk(context.Background(), d); !errs.Is(err, errs.NotFound) {
		t.Errorf("the disk of a deleted VM: %v", err)
	}
	if now, err := c.Claim(d.ID); now != nil || err != nil {
		t.Errorf("its claim: %+v %v", now, err)
	}
}
