package vm

import (
	"regexp"
	"slices"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// bridgeForm is what Linux takes for the name of a device, less what nobody should
// call one.
var bridgeForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$`)

func (v *validation) bridge(at string, n NICSpec) {
	if n.Bridge == "" {
		return
	}
	if !bridgeForm.MatchString(n.Bridge) {
		v.refuse(errs.InvalidField, at+"/bridge", "must be 1 to 15 characters of a-z, A-Z, 0-9, '_', '.', '-', and begin with none of the last two", "", n.Bridge)
	}
	if len(n.Forwards) > 0 {
		v.refuse(errs.InvalidField, at+"/forwards", "belong to a user-mode network: on a bridge the guest has an address of its own", "", n.Bridge)
	}
}

// Bridges lists the bridges that a VM's node has to have, each once.
func (v View) Bridges() []string {
	var out []string
	for _, n := range v.NICs {
		if n.Bridge != "" && !slices.Contains(out, n.Bridge) {
			out = append(out, n.Bridge)
		}
	}
	return out
}
