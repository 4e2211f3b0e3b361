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
// processes (keeper and hypervisor). It does not own disks, CDs or images: it opens
// the paths it is given, and lets the guest's user, and no other, at those that are
// the machine's own. Everything it makes carries the node's short id, so
// that several agents live on one machine.
//
// # Epochs
//
// A VM has at most one process per driver. Launch for an epoch that already
// runs is answered with its status (idempotent); Launch while another epoch's
// process lives is refused with errs.InvalidState: the caller kills first.
// An epoch runs once: Launch for one that ran and ended is refused with
// errs.InvalidState, so that a late duplicate never starts a guest again; raise
// the epoch, or Release first to say that the end was seen. A Launch that failed
// has not run and may be repeated. An epoch below the last one held is refused
// with errs.StaleEpoch.
// Every other call names the epoch it means; a call under another epoch than
// the process's is refused with errs.StaleEpoch and touches nothing. Where no
// process lives, Kill succeeds under any epoch: what it wants is so.
//
// # Crash and duplicate
//
// Every method may be repeated with the same arguments at any time and ends in
// the same world. A method that returns an error has either had no effect or
// one that the same call, or Kill and Release, cleans up. Kill returns only
// when the process is proven gone; an error from Kill means "not proven".
//
// # Moving a machine that runs
//
// A Migrator moves a machine between two hosts with its memory and its disks. The
// drivers meet nowhere: each end has streams, the caller carries their bytes between
// the hosts, and drops, delays or cuts them at will. Who is at the other end is proved
// within the streams, for one migration and one source.
//
//	source                               target
//	running  Depart ───departure──────>  Receive   incoming
//	running  Send   <──landing─────────
//	  :        ════ Dial ═══ Enter ════>    :      incoming
//	paused   Send returns nil            Arrived returns
//	           └── the caller decides whose the machine is ──┐
//	gone     Kill                        Resume    running    │ the target's
//	running  Resume                      Kill      gone       │ the source's
//
// What holds at every moment: one of the two, at most, executes. The target never
// does so by itself; the source, once Send has come to its decision, neither. The
// decision is the source's alone, and on its disk before it is told: so the caller may
// give the machine to the target when Send has returned nil and Arrived has returned,
// and not on one of the two: a stream that breaks with its last byte leaves a target
// that has everything, and a source that goes on.
//
// Resume of a source that was sent is right only for who can prove that the target
// has never executed and never will: its memory and its disks are of the moment of
// the halt.
//
// An agent that dies in the middle of Send takes its streams along. The next one finds
// the source as it was, running, or sent and halted: Adopt settles which. A target
// whose stream breaks ends by itself, with NotReceived for a reason; one into which
// nothing has come yet goes on waiting.
//
// # What it does not do
//
// It never decides to stop, start or restart anything, with one exception that
// belongs to the guest: a guest that powers itself off is gone.
package contract
