package cli

import (
	"fmt"
	"strings"

	"github.com/novacron/novacron/api"
)

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
