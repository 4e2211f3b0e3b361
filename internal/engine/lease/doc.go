// Package lease tells which servers live and who may do what only one may do.
//
// # Membership
//
// Every server has a row in servers and raises its beat every second. It also
// watches the beats of all others, with its own CLOCK_BOOTTIME: a beat that did
// not change for a whole TTL (3 s) since this server first saw it means dead. No
// wall clock, and no clock of another machine, takes part.
//
//	           beat sent      2/3 TTL: holder gives up       TTL: others may take over
//	holder  ───●──────────────────────────●
//	others       ●(first seen)───────────────────────────────────────●
//
// The holder counts from when it sent the beat, everyone else from when they
// saw it, which is later: the holder always gives up first. Bind gives a context
// that ends at that moment; work of a server runs under it.
//
// # Leases
//
// A role of which one server at a time should run (the sequencer, each
// leader-only reconciler) is a row in leases: holder and term. The holder's
// membership is the lease's life, so a lease costs no writes. The term rises
// with each change of holder; Term.Check inside a transaction refuses the
// writes of an earlier term.
//
// # Crash, partition, duplicate
//
// A killed or frozen server is dead to the others after TTL. When the database
// does not answer, judgement is suspended: nobody is declared dead until reads
// have worked for a whole TTL again, so a sick database is never read as dead
// servers. A server that stops cleanly removes its row and its leases. A row
// that was removed while its server only slept is made again by its next beat.
//
// # What it does not do
//
// It does not promise that two servers never believe to lead at once: a thawed
// server may, for the instant before its context ends. Fences (jobs.fence,
// leases.term, the attempt at hosts) refuse its writes.
package lease
