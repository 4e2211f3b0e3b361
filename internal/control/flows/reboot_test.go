package flows_test

import (
	"testing"

	"github.com/novacron/novacron/internal/control/controltest"
)

// A node that loses its power starts again what its own record says should run,
// and nothing else, without any control plane: on simulated and on real guests.
func TestRebootWithoutControlPlane(t *testing.T) {
	for name, cluster := range map[string]func(testing.TB, int) *controltest.Cluster{
		"Sim": controltest.New, "QEMU": controltest.NewQEMU,
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{Cluster: cluster(t, 1)}
			if err := started(t.Context(), w, "on"); err != nil {
				t.Fatal(err)
			}
			if err := created(t.Context(), w, "off"); err != nil {
				t.Fatal(err)
			}
			before := w.Running()
			if len(before) != 1 {
				t.Fatalf("before the reboot run %v", before)
			}
			n := w.Nodes[0]
			n.Kill()
			n.Host.PowerLoss()
			if left := w.Running(); len(left) != 0 {
				t.Fatalf("without power run %v", left)
			}
			if err := n.Reboot(t.Context()); err != nil {
				t.Fatal(err)
			}
			if after := w.Running(); len(after) != 1 || after[0] != before[0] {
				t.Errorf("before the reboot ran %v, after it %v", before, after)
			}
			// it belongs to the control plane again as soon as there is one
			n.Kill()
			if err := n.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := ask("delete")(t.Context(), w, "on"); err != nil {
				t.Fatal(err)
			}
			if err := w.Drive(t.Context()); err != nil || len(w.Running()) != 0 {
				t.Errorf("after its deletion run %v, %v", w.Running(), err)
			}
		})
	}
}
