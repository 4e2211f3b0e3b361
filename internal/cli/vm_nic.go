package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// interfaces are the network interfaces that were asked for.
func (f createFlags) interfaces(cmd *cobra.Command) ([]api.VMNICCreate, error) {
	nics, err := parseNICs(f.nics)
	if err != nil {
		return nil, usage(cmd, "--nic: %s", err)
	}
	var with api.VMNICCreate
	for _, s := range f.forwards {
		fwd, err := parseForward(s)
		if err != nil {
			return nil, usage(cmd, "--forward: %s", errs.As(err).Message)
		}
		with.Forwards = append(with.Forwards, fwd)
	}
	if len(with.Forwards) > 0 {
		nics = withForwards(nics, with)
	}
	return nics, nil
}

// parseNICs reads bridge=br0 and user.
func parseNICs(given []string) (out []api.VMNICCreate, err error) {
	for _, s := range given {
		bridge, on := strings.CutPrefix(s, "bridge=")
		switch {
		case s == "user":
			out = append(out, api.VMNICCreate{})
		case on && bridge != "":
			out = append(out, api.VMNICCreate{Bridge: bridge})
		default:
			return nil, fmt.Errorf("%.60q is neither bridge=NAME nor user", s)
		}
	}
	return out, nil
}

// withForwards gives forwards to the first interface in a user-mode network, or makes
// one for them.
func withForwards(nics []api.VMNICCreate, with api.VMNICCreate) []api.VMNICCreate {
	for i := range nics {
		if nics[i].Bridge == "" {
			nics[i] = with
			return nics
		}
	}
	return append(nics, with)
}

func onBridge(name string) string {
	if name == "" {
		return ""
	}
	return " on bridge " + name
}

func bridgeLine(b api.HostBridge) string {
	if b.Allowed {
		return "guests may join it"
	}
	return "guests may not join it (agent --bridges)"
}
