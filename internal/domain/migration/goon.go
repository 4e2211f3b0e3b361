package migration

import (
	"fmt"
	"slices"
	"strings"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
)

// cannotGoOn tells why a memory of one host cannot be taken up on another; was says what
// it did there.
func cannotGoOn(in vm.Intent, from, here node.Inventory, was string) (why []string) {
	if from.Hypervisor != here.Hypervisor {
		why = append(why, fmt.Sprintf("has the hypervisor %s, and %s under %s", here.Hypervisor, was, from.Hypervisor))
	}
	if from.Acceleration != here.Acceleration {
		why = append(why, fmt.Sprintf("runs guests under %s, and %s under %s", here.Acceleration, was, from.Acceleration))
	}
	if Older(here.HypervisorVersion, from.HypervisorVersion) {
		why = append(why, fmt.Sprintf("has %s %s, and %s under %s: the hypervisor may be newer, not older", here.Hypervisor, here.HypervisorVersion, was, from.HypervisorVersion))
	}
	if s := otherProcessor(in.Hardware.CPU, from, here, was); s != "" {
		why = append(why, s)
	}
	return why
}

// otherProcessor tells why a model that is not a named set of features is another on
// another host: the host's own is what its processor has, and the largest that can be
// emulated is what the hypervisor's version has.
func otherProcessor(model string, from, here node.Inventory, was string) string {
	emulated := from.Acceleration != "kvm"
	switch {
	case model == vm.CPUMax && emulated && from.HypervisorVersion != here.HypervisorVersion:
		return fmt.Sprintf("has %s %s, whose CPU model max is not that of %s, under which %s", here.Hypervisor, here.HypervisorVersion, from.HypervisorVersion, was)
	case model != vm.CPUHost && (model != vm.CPUMax || emulated):
		return ""
	case from.CPUModel != here.CPUModel:
		return fmt.Sprintf("has another processor (%s), and %s on %s", here.CPUModel, was, from.CPUModel)
	}
	if lacks := missing(from.CPUFlags, here.CPUFlags); len(lacks) > 0 {
		return fmt.Sprintf("lacks what the processor had on which %s: %s", was, clip(lacks))
	}
	return ""
}

// missing lists the features of one processor that another lacks; none where one of the two
// is not known.
func missing(from, here string) (lacks []string) {
	if here == "" {
		return nil
	}
	has := strings.Fields(here)
	slices.Sort(has)
	for f := range strings.FieldsSeq(from) {
		if _, ok := slices.BinarySearch(has, f); !ok {
			lacks = append(lacks, f)
		}
	}
	return lacks
}

// clip names the first few.
func clip(words []string) string {
	const most = 5
	if len(words) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(words[:most], " "), len(words)-most)
	}
	return strings.Join(words, " ")
}
