package flows_test

import (
	"os"
	"slices"
	"testing"

	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/engine/workflow/prove"
)

// The test binary is the keeper of its guests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case keeper.Face:
			os.Exit(keeper.Main(os.Args[2:]))
		case keeper.ExecFace:
			os.Exit(keeper.ExecMain(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// proofsEnv asks for the proofs of all flows that real guests have part in: minutes of each.
const proofsEnv = "NOVACRON_PROOFS"

func provesAll() bool { return os.Getenv(proofsEnv) != "" }

// The central workflows once more, with real guests: what is left is read from
// processes, cgroups, memory and disk.
func TestProofsOnQEMU(t *testing.T) {
	for _, f := range flows.All() {
		switch f.Name {
		case vm.JobStart, vm.JobStop, vm.JobSuspend, vm.JobDelete, vm.JobClone, vm.JobCapture, vm.JobDiskAdd, vm.JobDiskGrow, vm.JobDiskRemove, vm.JobLimit, vm.JobCDROM:
		default:
			continue
		}
		if !provesAll() && changesDisks(f.Name) {
			continue // make proofs runs them
		}
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			prove.Prove(t, prove.Subject[flows.Env]{Flow: f, Reuse: true, World: func(tb testing.TB) prove.World[flows.Env] {
				return newWorld(controltest.NewQEMU(tb, 1), proofs[f.Name])
			}})
		})
	}
}

func changesDisks(flow string) bool {
	return slices.Contains([]string{vm.JobClone, vm.JobCDROM, vm.JobCapture, vm.JobDiskAdd, vm.JobDiskGrow, vm.JobDiskRemove, vm.JobLimit}, flow)
}
