package chaos

import (
	"os"
	"testing"

	"github.com/novacron/novacron/internal/cli"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
)

// The test's binary is the program, too: its servers, its agents with what stands before
// their drivers, and the small processes beside guests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case keeper.Face:
			os.Exit(keeper.Main(os.Args[2:]))
		case keeper.ExecFace:
			os.Exit(keeper.ExecMain(os.Args[2:]))
		case agentFace:
			os.Exit(agentMain())
		case "server":
			os.Exit(cli.Main(os.Args[1:], "chaos"))
		}
	}
	os.Exit(m.Run())
}
