package control_test

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// A VM on a bridge goes where guests may join that, keeps an address of its own, and so
// does its clone; elsewhere it waits and says why.
func TestBridges(t *testing.T) {
	c := controltest.New(t, 1)
	n := c.NewVM("a", false)
	n.NICs = []vm.NICSpec{{Bridge: "br0"}, {}}
	allow := func(doc string) {
		if _, err := c.DB.Owner.Exec(t.Context(), "UPDATE nodes SET inventory = inventory || jsonb_build_object('bridges', $1::jsonb)", doc); err != nil {
			t.Fatal(err)
		}
	}
	allow(`[{"name": "br0", "allowed": true}]`)
	make1(t, c, n)
	v := view(t, c, "a")
	if v.NICs[0].Bridge != "br0" || v.NICs[1].Bridge != "" || v.NICs[0].MAC == v.NICs[1].MAC {
		t.Errorf("%+v", v.NICs)
	}
	_, err := c.Service.CloneVM(t.Context(), controltest.Admin(), "a", "d", nil)
	drive(t, c, err)
	if d := view(t, c, "d"); d.NICs[0].Bridge != "br0" || d.NICs[0].MAC == v.NICs[0].MAC {
		t.Errorf("%+v", d.NICs)
	}
	n.Name, n.NICs = "e", []vm.NICSpec{{Bridge: "br0", Forwards: []vm.Forward{{Protocol: "tcp", HostPort: 8080, GuestPort: 80}}}}
	if _, err := c.Service.CreateVM(t.Context(), controltest.Admin(), n); !errs.Is(err, errs.InvalidField) {
		t.Errorf("forwards on a bridge: %v", err)
	}
	execute(t, c)
	for name, has := range map[string]struct{ doc, why string }{
		"nowhere": {`[]`, "n1 has no bridge br0"},
		"private": {`[{"name": "br0"}]`, "n1 does not let guests onto bridge br0"},
	} {
		allow(has.doc)
		until(t, "placement has forgotten what was before", func() bool {
			_, recent := c.Env.Candidates.Recent()
			return !recent
		})
		n.Name, n.NICs = name, []vm.NICSpec{{Bridge: "br0"}}
		if _, err := c.Service.CreateVM(t.Context(), controltest.Admin(), n); err != nil {
			t.Fatal(err)
		}
		until(t, "it says why it waits", func() bool {
			p := view(t, c, name).Intent.Placement
			return p != nil && strings.Contains(p.Summary, has.why)
		})
	}
}
