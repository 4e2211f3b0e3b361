package qemu

import "slices"

// What can be missing around a guest, in the words in which nodes tell it, each followed by
// the reason. docs/security.md says of each what is lost without it, and what to do.
const (
	lacksRoot   = "a user, a root and a network of its own for each guest's hypervisor"
	lacksJail   = "a root, processes and a network of its own for each guest's hypervisor"
	lacksNet    = "a network of the hypervisors' own"
	lacksCgroup = "a cgroup of its own for each guest"
	lacksMemory = "a limit of memory around each guest's hypervisor"
	lacksPids   = "a limit of processes around each guest's hypervisor"
	lacksCPU    = "weights and caps of CPUs"
)

// lacked lists all of them.
var lacked = []string{lacksRoot, lacksJail, lacksNet, lacksCgroup, lacksMemory, lacksPids, lacksCPU}

// lacksOf says what is missing of cgroups.
func lacksOf(controllers []string) (missing []string) {
	if len(controllers) == 0 {
		return []string{lacksCgroup + ": the agent may make none, or none are mounted"}
	}
	for _, c := range []struct{ controller, word string }{{"memory", lacksMemory}, {"pids", lacksPids}, {"cpu", lacksCPU}} {
		if !slices.Contains(controllers, c.controller) {
			missing = append(missing, c.word+": this host's cgroups have no controller "+c.controller+" for the agent")
		}
	}
	return missing
}

// HostFirmware lists what guests of this host can start by, "bios" the first.
func HostFirmware() []string { return findFirmware(firmwareFolders).offered() }
