// Package contract says what a hypervisor driver promises its agent.
//
// A driver runs virtual machines of one node: it launches, observes and ends
// hypervisor processes, and it knows nothing of the control plane, of intent or
// of other nodes. Its truth is the host: after any crash of the agent, Adopt
// tells what runs by looking at processes, not at memories.
//
// # Who owns what
//
// The driver owns, per VM, a run folder, a RAM file, a cgroup, sockets and the
// processes (keeper and hypervisor). It does not own disks or images: it opens
// the paths it is given. Everything it makes carries the node's short id, so
// that several agents live on one machine.
//
// # Epochs
//
// A VM has at most one process per driver. Launch for an epoch that already
// runs is answered with its status (idempotent); Launch while another epoch's
// process lives is refused with errs.InvalidState: the caller kills first.
// Every other call names the epoch it means; a call under another epoch than
// the process's is refused with errs.StaleEpoch and touches nothing.
//
// # Crash and duplicate
//
// Every method may be repeated with the same arguments at any time and ends in
// the same world. A method that returns an error has either had no effect or
// one that the same call, or Kill and Release, cleans up. Kill returns only
// when the process is proven gone; an error from Kill means "not proven".
//
// # What it does not do
//
// It never decides to stop, start or restart anything, with one exception that
// belongs to the guest: a guest that powers itself off is gone.
package contract
