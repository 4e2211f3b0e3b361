// Package agent is the node daemon: it carries out commands about the VMs of
// one host, watches them, and reports what it sees.
//
// # Who owns what
//
// The agent owns its node's records (one small file per VM), its volumes, VMs'
// seeds among them, and its image cache, through drivers. It reports observations and never writes
// intent. Its records answer two questions without any control plane: which
// commands are too old to obey (the fence), and which VMs this host should run
// after a reboot (PowerOn with the machine they were launched with).
//
// # Order of writing
//
// A command first raises the fence and, where it changes what the node should
// run, the record (temporary file, fsync, rename, fsync of the folder); then it
// acts. So a crash in between leaves a record that the same command, repeated,
// agrees with; and a reboot never starts what a stop had begun to end.
//
// # Crash
//
// Guests do not notice: they run in processes of their own. On start the agent
// adopts what the driver finds on the host. A VM whose process is gone and
// whose record was written under another boot of the host is launched again,
// under its own epoch. One that ended while the agent was away, with the host
// up, is reported as it ended. A process without a record (lost or corrupt) is
// adopted and reported, and nothing is started for it.
//
// # Partition
//
// Without servers the agent goes on: nothing is stopped or started because of
// it. Reports wait, the newest per VM, and go up when a server is back.
//
// # Moves
//
// The move of a VM that runs is settled by the two agents, each of which has on its
// disk how far it is (move.go). What the target has of a VM before it is its own is
// nobody's observation, and is not reported.
//
// # Duplicates
//
// The gate refuses a lower owner epoch, a lower attempt and any step of an
// earlier operation; the same operation, step and attempt is answered from
// memory. Everything beneath is idempotent, so an agent that lost that memory
// may do the step again.
package agent
