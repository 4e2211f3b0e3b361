package flows_test

import (
	"context"
	"testing"

	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/engine/workflow/prove"
)

func uefiVM(start bool) func(context.Context, *world, string) error {
	return func(ctx context.Context, w *world, name string) error {
		n := w.NewVM(name, start)
		n.Hardware.Firmware = vm.FirmwareUEFI
		_, err := w.Service.CreateVM(ctx, controltest.Admin(), n)
		return finish(ctx, w, err)
	}
}

// Of a VM that starts by UEFI nothing is left over either: what its firmware keeps is
// among what is looked for when it is gone.
func TestProofsOfUEFI(t *testing.T) {
	for kind, cluster := range map[string]func(testing.TB, int) *controltest.Cluster{"Sim": controltest.New, "QEMU": controltest.NewQEMU} {
		for _, c := range []struct {
			name    string
			flow    func() workflow.Flow[flows.Env]
			running bool
		}{{vm.JobStart, flows.VMStart, false}, {vm.JobSuspend, flows.VMSuspend, true}, {vm.JobDelete, flows.VMDelete, true}} {
			if kind == "QEMU" && (!provesAll() || c.name != vm.JobDelete) {
				continue // firmware takes seconds of processor time; the driver has tests of its own
			}
			t.Run(kind+c.name, func(t *testing.T) {
				t.Parallel()
				p := proofs[c.name]
				p.before = uefiVM(c.running)
				prove.Prove(t, prove.Subject[flows.Env]{Flow: c.flow(), Reuse: true, World: func(tb testing.TB) prove.World[flows.Env] {
					return newWorld(cluster(tb, 1), p)
				}})
			})
		}
	}
}
