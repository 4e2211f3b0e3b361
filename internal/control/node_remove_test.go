package control_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// rows dumps what a node could change.
func rows(t *testing.T, c *controltest.Cluster) string {
	t.Helper()
	var b strings.Builder
	for _, table := range []string{"vms", "instances", "nodes", "storage_volumes", "jobs", "events", "audit_log"} {
		var all string
		err := c.DB.App.QueryRow(t.Context(), "SELECT coalesce(string_agg(to_jsonb(r)::text, E'\n' ORDER BY to_jsonb(r)::text), '') FROM "+table+" r").Scan(&all)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s:\n%s\n", table, all)
	}
	return b.String()
}

// twoOnOne makes a cluster of two nodes: n1 with a running and a stopped VM.
func twoOnOne(t *testing.T) *controltest.Cluster {
	t.Helper()
	c := controltest.New(t, 2)
	for name, start := range map[string]bool{"off": false, "on": true} {
		n := c.NewVM(name, start)
		n.Node = c.Nodes[0].ID.String() // an id is as good as a name
		_, err := c.Service.CreateVM(t.Context(), controltest.Admin(), n)
		drive(t, c, err)
	}
	return c
}

// A node that reports is not removed by force, and nothing changes.
func TestForceNeedsSilence(t *testing.T) {
	c := twoOnOne(t)
	before := rows(t, c)
	_, err := c.Service.RemoveNodeByForce(t.Context(), controltest.Admin(), "n1", nil)
	if !errs.Is(err, errs.InvalidState) || !strings.Contains(errs.As(err).Message, "stop its agent") {
		t.Errorf("%v", err)
	}
	c.Nodes[0].SetDown(true)
	old := int64(1)
	if _, err := c.Service.RemoveNodeByForce(t.Context(), controltest.Admin(), "n1", &old); !errs.Is(err, errs.RevisionMismatch) {
		t.Errorf("a stale revision: %v", err)
	}
	if after := rows(t, c); after != before {
		t.Errorf("a refused removal changed something:\n%s\nbefore:\n%s", after, before)
	}
}

// Whose node is removed by force is lost: what it took is given back, its old
// incarnation never counts again, and only its deletion is left.
func TestRemoveNodeByForce(t *testing.T) {
	c := twoOnOne(t)
	was, err := c.Service.VM(t.Context(), "on")
	if err != nil {
		t.Fatal(err)
	}
	c.Nodes[0].SetDown(true)
	if _, err := c.Service.RemoveNodeByForce(t.Context(), controltest.Admin(), "n1", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Service.Node(t.Context(), "n1"); !errs.Is(err, errs.NotFound) {
		t.Errorf("the node: %v", err)
	}
	for _, v := range views(t, c) {
		if v.Node != nil || v.Intent.NodeID != nil || v.Intent.Reserved || v.Intent.Lost == nil || v.Intent.Lost.Node != "n1" {
			t.Errorf("%s: %+v on %v", v.Intent.Name, v.Intent, v.Node)
		}
	}
	v, err := c.Service.VM(t.Context(), "on")
	if err != nil || v.Intent.Epoch <= was.Intent.Epoch || v.Observed == nil || !reflect.DeepEqual(v.Observed, was.Observed) {
		t.Errorf("epoch %d after %d; observed %+v, was %+v; %v", v.Intent.Epoch, was.Intent.Epoch, v.Observed, was.Observed, err)
	}
	if _, err := c.Service.Placed(t.Context(), "on"); !errs.Is(err, errs.NodeRemoved) {
		t.Errorf("the console of a lost VM: %v", err)
	}
	var n, forced int
	var names string
	err = c.DB.App.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE principal = 'test' AND object_name = 'n1' AND (detail->>'forced')::boolean),
		max((SELECT string_agg(x->>'name', ' ') FROM jsonb_array_elements(detail->'vms') x)) FROM audit_log WHERE action = 'node.remove'`).Scan(&n, &forced, &names)
	if err != nil || n != 1 || forced != 1 || names != "off on" {
		t.Errorf("audit: %d records, %d as wanted, VMs %q, %v", n, forced, names, err)
	}
	for _, name := range []string{"off", "on"} {
		_, err := c.Service.AskVM(t.Context(), controltest.Admin(), name, vm.Delete, control.Stop{})
		drive(t, c, err)
		if _, err := c.Service.VM(t.Context(), name); !errs.Is(err, errs.NotFound) {
			t.Errorf("%s after its deletion: %v", name, err)
		}
	}
	if drift, err := c.Store.NodeUsageDrift(t.Context()); err != nil || len(drift) > 0 {
		t.Errorf("%v %v", drift, err)
	}
}

// A node that returns after it was removed is refused, keeps its guests running,
// and changes no row, whatever it says.
func TestRemovedNodeReturns(t *testing.T) {
	c := twoOnOne(t)
	on, err := c.Service.VM(t.Context(), "on")
	if err != nil {
		t.Fatal(err)
	}
	n := c.Nodes[0]
	n.SetDown(true)
	if _, err := c.Service.RemoveNodeByForce(t.Context(), controltest.Admin(), "n1", nil); err != nil {
		t.Fatal(err)
	}
	before := rows(t, c)
	n.Kill()
	n.SetDown(false)
	if err := n.Return(t.Context()); !errs.Is(err, errs.NodeRemoved) {
		t.Errorf("its hello: %v", err)
	}
	for epoch := on.Intent.Epoch; epoch <= on.Intent.Epoch+2; epoch++ {
		out, err := c.Service.Reports(t.Context(), n.ID, 9, []nodelink.Report{{VM: on.Intent.ID, Epoch: epoch, Seq: 1 << 60, Phase: vm.PhaseRunning}})
		if err != nil || !slices.Equal(out.Results, []nodelink.Result{nodelink.NotPlaced}) {
			t.Errorf("its report of epoch %d: %+v %v", epoch, out, err)
		}
	}
	c.Service.Beat(n.ID, nodelink.Heartbeat{NodeEpoch: 9, Seq: 9 << 32})
	if err := c.Store.NodeBeats(t.Context(), map[id.ID]int64{n.ID: 9 << 32}); err != nil {
		t.Error(err)
	}
	if after := rows(t, c); after != before {
		t.Errorf("a removed node changed something:\n%s\nbefore:\n%s", after, before)
	}
	if r := c.Running(); !slices.Equal(r, []string{on.Intent.ID.String()}) {
		t.Errorf("on the removed node run %v", r)
	}
}
