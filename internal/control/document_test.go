package control_test

import (
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// What each object takes is asked for where it is changed, in a dry run too, and a
// denial is on record.
func TestApplyAsksForEachObject(t *testing.T) {
	c := controltest.New(t, 1)
	make1(t, c, c.NewVM("a", false))
	reader := controltest.Admin()
	reader.Role = auth.Reader
	docs := []control.Document{
		{Kind: "vm", Name: "a", VM: &vm.Want{CPUs: new(2)}},
		{Kind: "vm", Name: "b", VM: &vm.Want{CPUs: new(1), MemoryBytes: new(64 * unit.MiB), Image: new("tiny")}},
		{Kind: "image", Name: "tiny", Image: &image.Want{Aliases: &[]string{"small"}}},
		{Kind: "node", Name: "n1", Node: &node.Want{Schedulable: new(false)}},
	}
	for _, d := range docs {
		for _, dry := range []bool{true, false} {
			if _, err := c.Service.Apply(t.Context(), reader, d, control.ApplyOptions{DryRun: dry}); !errs.Is(err, errs.Forbidden) {
				t.Errorf("a reader applies %s %s (dry run: %v): %v", d.Kind, d.Name, dry, err)
			}
		}
	}
	if a, err := c.Service.Apply(t.Context(), reader, control.Document{Kind: "image", Name: "tiny", Image: &image.Want{}}, control.ApplyOptions{}); err != nil || a.Action != control.ActionNone {
		t.Errorf("a reader compares an image: %+v %v", a, err)
	}
	for _, d := range docs {
		a, err := c.Service.Apply(t.Context(), controltest.Admin(), d, control.ApplyOptions{})
		if err != nil || a.Action == control.ActionNone {
			t.Errorf("%s %s: %+v %v", d.Kind, d.Name, a, err)
		}
		drive(t, c, nil) // a node that is cordoned first would take no VM
	}
	var denied, accepted int
	err := c.DB.App.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM audit_log WHERE action = 'apply' AND outcome = 'denied'),
		(SELECT count(*) FROM audit_log WHERE outcome = 'accepted' AND action IN ('vm.update', 'vm.create', 'image.alias.set', 'node.cordon'))`).Scan(&denied, &accepted)
	if err != nil || denied != 2*len(docs) || accepted != len(docs)+1 { // and the VM that was there
		t.Errorf("%d denials and %d changes on record: %v", denied, accepted, err)
	}
	request(t, c, "a", vm.Delete)
	request(t, c, "b", vm.Delete)
	clean(t, c)
}
