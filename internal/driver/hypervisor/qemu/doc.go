// Package qemu drives QEMU over QMP, one process per guest.
//
// # Who owns what
//
// Per VM the driver owns, each under the node's short id:
//
//	<DataDir>/vms/<vm>/           records and log: machine.json, proc.json, asked.json,
//	                              exit.json, end.json, landing.json, serial.*.log, lock
//	<RunDir>/<node>/<vm>/         sockets: control, serial, keeper
//	<RAMDir>/<node>/<vm>          guest memory, a file on tmpfs
//	cgroup novacron-<node>/<vm>   wherever the host lets us make one
//	a uid of the reserved range   when the agent is root
//	keeper, QEMU, passt           processes; QEMU in a jail when the agent is root
//
// and per node <RunDir>/<node>/root, an empty folder over which jails mount theirs,
// and <RunDir>/<node>/net, the network namespace of all QEMUs, while an agent or a
// guest needs it.
//
// It opens the images it is given, hands them to QEMU, and never creates or removes
// one; they stay the agent's. Before a guest executes, the locks on its disks are
// looked at.
//
// # States, and the record that proves each
//
//	machine.json             a launch has begun; nothing executes yet
//	+ proc.json              the processes exist (written before QEMU is)
//	+ exit.json              the keeper has reaped QEMU
//	+ end.json               the driver has judged the end, once and for all
//
// The phase of a live guest is what query-status says, and stopping once this
// driver has asked for a shutdown. asked.json remembers for the judgement of the
// end what any driver asked; an adopted guest that did not act on it runs. QEMU starts halted (-S); the
// guest executes only after everything is recorded and connected, by "cont". So a
// launch that an agent's death cut in two is found as "starting", and is safe to
// throw away.
//
// # Crash, partition, duplicate
//
// After any crash of the agent, Adopt reads these records, and believes a pid only
// with its start time and boot, and a socket only with the VM's UUID behind it. A
// hypervisor that does not answer is reported as it was last known, with the
// reason, and asked again in the background; it is not touched. When the keeper is
// gone too, the guest goes on; how it ends is then reported as not known.
//
// A kill is SIGKILL through a pidfd and then the whole cgroup, and is proven by
// the kernel. Memory, cgroup, uid and sockets are given back as soon as the end is
// seen; records and log stay until Release or the next launch.
//
// # Moving a machine that runs
//
// The target is launched as ever, with -incoming defer and a landing in its record; it
// counts as half launched until asked.json says that it waits. What the source has begun
// stands in its asked.json before QEMU is told anything, and what becomes of a move that
// nobody drives is what QEMU says of it:
//
//	completed, and postmigrate   it was sent: it stays halted, whoever comes
//	anything else                cancelled; mirrors and nodes removed; it goes on
//
// Streams end before QEMU is asked for a verdict: whatever waits for the other host gets
// an error then, and answers. The drivers speak TLS with each other (credentials.go,
// pump.go); their sockets are inside/memory and inside/disks. Mirrors are jobs called
// move-vda, onto nodes called vda-far.
//
// # What it does not do
//
// It does not probe image formats, fetch anything, or start guests again.
// Capabilities says what confines a guest on this host, and what does not.
package qemu
