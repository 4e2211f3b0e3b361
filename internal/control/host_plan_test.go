package control_test

import (
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func tellPlans(t *testing.T, c *controltest.Cluster) control.PlansTold {
	t.Helper()
	told, err := c.Service.TellPlans(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return told
}

// What is decided of a VM's start reaches its node, once; a host that reboots
// without a control plane goes by it: on simulated and on real guests.
func TestPlansReachNodes(t *testing.T) {
	for kind, cluster := range map[string]func(testing.TB, int) *controltest.Cluster{"Sim": controltest.New, "QEMU": controltest.NewQEMU} {
		t.Run(kind, func(t *testing.T) {
			c := cluster(t, 1)
			n := c.Nodes[0]
			make1(t, c, c.NewVM("web", true))
			lab := c.NewVM("lab", true)
			lab.Policy.ByHand = true
			make1(t, c, lab)
			if told := tellPlans(t, c); told != (control.PlansTold{Told: 1}) {
				t.Errorf("at first: %+v", told)
			}
			if told := tellPlans(t, c); told != (control.PlansTold{}) {
				t.Errorf("nothing has changed: %+v", told)
			}
			if err := update(t, c, "web", vm.Change{Policy: vm.PolicyChange{StartOrder: new(3), StartDelaySeconds: new(int64(60))}}); err != nil {
				t.Fatal(err)
			}
			n.SetDown(true)
			if told := tellPlans(t, c); told != (control.PlansTold{}) {
				t.Errorf("its node is away: %+v", told)
			}
			n.SetDown(false)
			if told := tellPlans(t, c); told != (control.PlansTold{Told: 1}) {
				t.Errorf("after a change: %+v", told)
			}
			if err := n.Reboot(t.Context()); err != nil {
				t.Fatal(err)
			}
			web, err := c.Service.VM(t.Context(), "web")
			if err != nil {
				t.Fatal(err)
			}
			if up := c.Running(); len(up) != 1 || up[0] != web.Intent.ID.String() {
				t.Errorf("after the reboot run %v, want %s alone", up, web.Intent.ID)
			}
			n.Kill()
			if err := n.Return(t.Context()); err != nil {
				t.Fatal(err)
			}
			if told := tellPlans(t, c); told != (control.PlansTold{}) {
				t.Errorf("it has said what it has: %+v", told)
			}
			request(t, c, "web", vm.Delete)
			request(t, c, "lab", vm.Delete)
			clean(t, c)
		})
	}
}

// A node that has lost its plan, or whose server told an older one late, is told
// again; one that does not know the command is left alone.
func TestPlansAreToldAgain(t *testing.T) {
	c := controltest.New(t, 1)
	n := c.Nodes[0]
	if _, err := c.Service.SetShutdown(t.Context(), controltest.Admin(), n.Name, node.ShutdownLeave, nil); err != nil {
		t.Fatal(err)
	}
	if told := tellPlans(t, c); told.Told != 1 {
		t.Errorf("%+v", told)
	}
	n.Kill()
	if err := n.LosePlan(); err != nil {
		t.Fatal(err)
	}
	if err := n.Return(t.Context()); err != nil {
		t.Fatal(err)
	}
	if told := tellPlans(t, c); told.Told != 1 {
		t.Errorf("after its plan was lost: %+v", told)
	}
	if told := tellPlans(t, c); told != (control.PlansTold{}) {
		t.Errorf("once told: %+v", told)
	}
}

// What a node does at its host's shutdown is an operator's to say, recorded, and
// nothing else is taken.
func TestShutdownPolicy(t *testing.T) {
	c := controltest.New(t, 1)
	name := c.Nodes[0].Name
	was, err := c.Service.Node(t.Context(), name)
	if err != nil || was.Shutdown != node.ShutdownStop {
		t.Fatalf("%+v %v", was, err)
	}
	if _, err := c.Service.SetShutdown(t.Context(), controltest.Admin(), name, "hibernate", nil); !errs.Is(err, errs.InvalidField) {
		t.Errorf("%v", err)
	}
	if _, err := c.Service.SetShutdown(t.Context(), controltest.Admin(), name, node.ShutdownLeave, new(int64(was.Revision)-1)); !errs.Is(err, errs.RevisionMismatch) {
		t.Errorf("%v", err)
	}
	now, err := c.Service.SetShutdown(t.Context(), controltest.Admin(), name, node.ShutdownLeave, new(int64(was.Revision)))
	if err != nil || now.Shutdown != node.ShutdownLeave || now.Revision == was.Revision {
		t.Errorf("%+v %v", now, err)
	}
	doc := control.Document{Kind: "node", Name: name, Node: &node.Want{Shutdown: new(node.ShutdownStop)}}
	if a, err := c.Service.Apply(t.Context(), controltest.Admin(), doc, control.ApplyOptions{}); err != nil || a.Action != control.ActionChange {
		t.Errorf("by a document: %+v %v", a, err)
	}
	doc.Node.Shutdown = new(node.ShutdownPolicy("none"))
	if _, err := c.Service.Apply(t.Context(), controltest.Admin(), doc, control.ApplyOptions{}); !errs.Is(err, errs.InvalidField) || errs.As(err).Fields[0].Pointer != "/spec/shutdown_policy" {
		t.Errorf("by a document: %v", err)
	}
	var recorded int
	if err := c.DB.App.QueryRow(t.Context(), `SELECT count(*) FROM audit_log WHERE action = 'node.update'`).Scan(&recorded); err != nil || recorded != 2 {
		t.Errorf("%d records of two changes: %v", recorded, err)
	}
}
