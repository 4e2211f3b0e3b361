package flows_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow/prove"
	"github.com/novacron/novacron/internal/vocab/id"
)

// hasCD looks whether a VM runs, and has a CD in its drive by its record and on its host;
// or nothing, by both.
func hasCD(ctx context.Context, w *world, name, cd string) error {
	if err := appears(ctx, w, name, vm.Running); err != nil {
		return err
	}
	v, err := w.Store.VMGet(ctx, w.Project, name)
	if err != nil {
		return err
	}
	want := ""
	if cd != "" {
		if want, err = w.AddCD(ctx, cd); err != nil {
			return err
		}
	}
	if got := v.Intent.CDROM; (got != nil) != (cd != "") || got != nil && got.Name != cd {
		return fmt.Errorf("the record of VM %s has CD %+v, want %q", name, got, cd)
	}
	for _, n := range w.Nodes {
		tells, ok := n.Host.(interface {
			Medium(v id.ID) (string, bool)
		})
		if !ok {
			return fmt.Errorf("a host of %T does not tell", n.Host)
		}
		if n.ID != *v.Intent.NodeID {
			continue
		}
		if got, live := tells.Medium(v.Intent.ID); !live || got != want {
			return fmt.Errorf("the host of VM %s has CD %q, want %q", name, got, want)
		}
	}
	return nil
}

func withCD(ctx context.Context, w *world, name string) error {
	if _, err := w.AddCD(ctx, "disc"); err != nil {
		return err
	}
	n := w.NewVM(name, true)
	n.CDROM = "disc"
	_, err := w.Service.CreateVM(ctx, controltest.Admin(), n)
	return finish(ctx, w, err)
}

// An eject survives failure, repetition, kill and cancellation at every step: the CD is in
// the drive, or it is not, by the record and on the host.
func TestProofsOfEject(t *testing.T) {
	p := proof{
		before: withCD,
		ask: func(ctx context.Context, w *world, name string) (control.Accepted, error) {
			return w.Service.EjectCD(ctx, controltest.Admin(), name, false)
		},
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			return hasCD(ctx, w, name, map[bool]string{false: "disc"}[end == job.Succeeded])
		},
	}
	for kind, cluster := range map[string]func(testing.TB, int) *controltest.Cluster{"Sim": controltest.New, "QEMU": controltest.NewQEMU} {
		if kind == "QEMU" && !provesAll() {
			continue // make proofs runs it
		}
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			proveCD(t, cluster, p)
		})
	}
}

// So does the exchange of one CD for another: one of the two is in the drive, never
// neither.
func TestProofsOfReplacedCD(t *testing.T) {
	proveCD(t, controltest.New, proof{
		before: withCD,
		ask: func(ctx context.Context, w *world, name string) (control.Accepted, error) {
			if _, err := w.AddCD(ctx, "other"); err != nil {
				return control.Accepted{}, err
			}
			return w.Service.AttachCD(ctx, controltest.Admin(), name, control.AttachCD{Image: "other", Replace: true})
		},
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			return hasCD(ctx, w, name, map[bool]string{false: "disc", true: "other"}[end == job.Succeeded])
		},
	})
}

func proveCD(t *testing.T, cluster func(testing.TB, int) *controltest.Cluster, p proof) {
	t.Helper()
	prove.Prove(t, prove.Subject[flows.Env]{Flow: flows.VMCDROM(), Reuse: true, World: func(tb testing.TB) prove.World[flows.Env] {
		return newWorld(cluster(tb, 1), p)
	}})
}
