package node

import (
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Only a node of which nobody has heard for a lease is removed with its VMs.
func TestRemoveByForce(t *testing.T) {
	for name, c := range map[string]struct {
		node   Node
		silent bool
		ok     bool
	}{
		"Gone":           {Node{State: Active, VMs: 3}, true, true},
		"GoneCordoned":   {Node{State: Cordoned}, true, true},
		"Reports":        {Node{State: Active, VMs: 3, Reporting: true}, false, false},
		"ReportsEmpty":   {Node{State: Cordoned, Reporting: true}, true, false},
		"NotWatchedLong": {Node{State: Active, VMs: 3}, false, false},
		"Removed":        {Node{State: Removed}, true, false},
	} {
		err := c.node.RemoveByForce(c.silent)
		if (err == nil) != c.ok || (err != nil && !errs.Is(err, errs.InvalidState)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
