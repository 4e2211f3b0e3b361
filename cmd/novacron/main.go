// Command novacron is the whole product: everything on one machine (up), the
// control plane (server), a host's agent (agent), and the command line.
package main

import (
	"os"
	"runtime/debug"

	"github.com/novacron/novacron/internal/cli"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
)

// version is set by release builds (-ldflags "-X main.version=v1.2.3").
var version string

func main() { os.Exit(run(os.Args)) }

func run(args []string) int {
	if len(args) > 1 {
		// The small processes beside a guest, before anything else costs memory.
		switch args[1] {
		case keeper.Face:
			return keeper.Main(args[2:])
		case keeper.ExecFace:
			return keeper.ExecMain(args[2:])
		}
	}
	return cli.Main(args[1:], buildVersion())
}

// buildVersion is the release, or the commit the program was built from.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	commit, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			commit = s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if commit == "" {
		return "dev"
	}
	return "dev-" + commit + dirty
}
