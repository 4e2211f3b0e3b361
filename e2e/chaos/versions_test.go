package chaos

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/domain/migration"
)

// nextQEMU gives the program of a newer QEMU than the installed one, where it is.
func nextQEMU(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs("../../.cache/qemu-next/usr/bin/qemu-system-x86_64")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Skip("there is no second QEMU: make versions-test fetches and runs it: ", err)
	}
	return path
}

// A guest moves to a node with a newer QEMU while it executes, with all that it has, and
// not back: that is refused before anything begins, and so is the way of a guest whose
// board an older QEMU does not have. At rest it goes back.
func TestTwoVersionsOfQEMU(t *testing.T) {
	apart(t)
	b := openBench(t, "", "", nextQEMU(t))
	older, newer := b.inventory(b.nodes[0]), b.inventory(b.nodes[1])
	if !migration.Older(older.HypervisorVersion, newer.HypervisorVersion) {
		t.Fatalf("%s runs QEMU %s, and %s %s", b.nodes[0].Name, older.HypervisorVersion, b.nodes[1].Name, newer.HypervisorVersion)
	}
	v := &versions{bench: b, older: older, newer: newer, board: older.MachineTypes[0]}
	v.forward()
	v.notBack("it runs under")
	v.done("suspend", func() (client.Change, error) { return b.client.VMs.Suspend(t.Context(), vmName) })
	v.notBack("its memory was saved under")
	v.done("resume", func() (client.Change, error) { return b.client.VMs.Resume(t.Context(), vmName) })
	if err := b.witness.goesOn(5, settleTime); err != nil {
		t.Fatal(err)
	}
	v.newerBoard()
	v.backAtRest()
}

// versions is a bench whose second node has a newer QEMU than the others.
type versions struct {
	*bench
	older, newer api.Inventory
	// board is the type of the witness's.
	board string
}

func (b *bench) inventory(n *node) api.Inventory {
	b.t.Helper()
	got, err := b.client.Nodes.Get(b.t.Context(), n.Name)
	if err != nil {
		b.t.Fatal(err)
	}
	return got.Status.Inventory
}

// done asks for a change of a VM and waits for its end.
func (v *versions) done(what string, ask func() (client.Change, error)) {
	v.t.Helper()
	change, err := ask()
	if err == nil {
		_, err = v.client.WaitChange(v.t.Context(), change, nil)
	}
	if err != nil {
		v.t.Fatalf("%s: %v", what, err)
	}
}

func (v *versions) vm(name string) api.VM {
	v.t.Helper()
	got, err := v.client.VMs.Get(v.t.Context(), name)
	if err != nil {
		v.t.Fatal(err)
	}
	return got
}

// forward moves the witness to the newer QEMU while it executes.
func (v *versions) forward() {
	t := v.t
	t.Helper()
	if err := v.try(t.Context(), atMemory, faults[0], 0); err != nil {
		t.Fatal(err)
	}
	at := v.nodes[1]
	pids := at.guests()
	if is := v.vm(vmName); is.Status.Node != at.Name || is.Spec.Machine.Type != v.board || len(pids) != 1 {
		t.Fatalf("the guest is on node %s with board %s, in processes %v", is.Status.Node, is.Spec.Machine.Type, pids)
	}
	if runs, err := os.Readlink("/proc/" + strconv.Itoa(pids[0]) + "/exe"); err != nil || runs != at.QEMU {
		t.Fatalf("it runs in %s %v", runs, err)
	}
}

// notBack sees that the memory of the witness does not go to an older QEMU.
func (v *versions) notBack(was string) {
	v.t.Helper()
	v.refused(vmName, "has qemu "+v.older.HypervisorVersion+", and "+was+" "+v.newer.HypervisorVersion+": the hypervisor may be newer, not older")
}

// refused sees that a VM goes to neither of the nodes with the older QEMU, for that reason,
// and that nothing has begun.
func (v *versions) refused(name, why string) {
	t, ctx := v.t, v.t.Context()
	t.Helper()
	before, moves := v.vm(name), v.moves()
	for _, to := range []string{v.nodes[0].Name, v.nodes[2].Name, ""} {
		plan, err := v.client.VMs.PlanMigration(ctx, name, api.VMMigrate{Node: to})
		if err != nil || plan.Target != "" || len(plan.Candidates) > 0 {
			t.Fatalf("to %q: %+v %v", to, plan, err)
		}
		for _, r := range plan.Rejected {
			if (to == r.Node || to == "" && r.Node != v.nodes[1].Name) && !slices.Contains(r.Reasons, why) {
				t.Errorf("the plan refuses %s because it %q, and not because it %q", r.Node, r.Reasons, why)
			}
		}
		_, err = v.client.VMs.Migrate(ctx, name, api.VMMigrate{Node: to})
		if client.CodeOf(err) != "no_node_fits" || !strings.Contains(err.Error(), why) {
			t.Errorf("to %q: %v", to, err)
		}
	}
	after := v.vm(name)
	if after.Revision != before.Revision || after.Status.Job != "" || after.Status.Node != before.Status.Node || after.Status.OwnerEpoch != before.Status.OwnerEpoch || v.moves() != moves {
		t.Errorf("before %+v, and after %+v", before, after)
	}
	for _, n := range []*node{v.nodes[0], v.nodes[2]} {
		if left := n.leftovers(before.ID); len(left) > 0 || len(n.guests()) > 0 {
			t.Errorf("node %s has %v", n.Name, left)
		}
	}
}

// moves counts the records of migrations.
func (v *versions) moves() (n int) {
	v.t.Helper()
	for _, err := range v.client.Migrations.All(v.t.Context(), client.ListOptions{}) {
		if err != nil {
			v.t.Fatal(err)
		}
		n++
	}
	return n
}

// backAtRest moves the witness, which executes no more, to an older QEMU: its board is one
// that this has, and its disk holds all that it told.
func (v *versions) backAtRest() {
	t, ctx := v.t, v.t.Context()
	t.Helper()
	v.done("stop", func() (client.Change, error) { return v.client.VMs.Stop(ctx, vmName, api.VMStop{Force: true}) })
	v.goes(vmName)
	if err := v.witness.goesOn(5, settleTime); err != nil {
		t.Fatal(err)
	}
	if h := v.witness.heard(); len(h.wrong) > 0 {
		t.Fatal(h.wrong)
	}
}

// goes moves a VM at rest to the first node, as a plan says, and starts it there.
func (v *versions) goes(name string) {
	t, ctx, to := v.t, v.t.Context(), v.nodes[0].Name
	t.Helper()
	plan, err := v.client.VMs.PlanMigration(ctx, name, api.VMMigrate{Node: to})
	if err != nil || plan.Type != "cold" || plan.Target != to {
		t.Fatalf("%+v %v", plan, err)
	}
	v.done("move back", func() (client.Change, error) {
		return v.client.VMs.Migrate(ctx, name, api.VMMigrate{Node: to})
	})
	v.done("start", func() (client.Change, error) { return v.client.VMs.Start(ctx, name) })
	if is := v.vm(name); is.Status.Node != to || is.Status.State != "running" || is.Spec.Machine.Type != v.board {
		t.Fatalf("%s is %s on %s, with board %s", name, is.Status.State, is.Status.Node, is.Spec.Machine.Type)
	}
}

// newerBoard makes a guest with the newest board of the newer QEMU. It goes to no older one,
// until it is given a board that both have.
func (v *versions) newerBoard() {
	t, ctx := v.t, v.t.Context()
	t.Helper()
	const name = "newer"
	v.done("create", func() (client.Change, error) {
		return v.client.VMs.Create(ctx, api.VMCreate{Name: name, CPUs: 1, MemoryBytes: 64 << 20, Image: "witness", Node: v.nodes[1].Name, Start: true})
	})
	is := v.vm(name)
	if is.Spec.Machine.Type != v.newer.MachineTypes[0] || slices.Contains(v.older.MachineTypes, is.Spec.Machine.Type) {
		t.Fatalf("its board is %s", is.Spec.Machine.Type)
	}
	why := "has no machine type " + is.Spec.Machine.Type + " (its newest is " + v.board + ")"
	v.refused(name, why)
	v.done("stop", func() (client.Change, error) { return v.client.VMs.Stop(ctx, name, api.VMStop{Force: true}) })
	v.refused(name, why)
	if _, err := v.client.VMs.Patch(ctx, name, v.vm(name).Revision, api.VMPatch{Machine: &api.VMMachine{Type: v.board}}); err != nil {
		t.Fatal(err)
	}
	v.goes(name)
}
