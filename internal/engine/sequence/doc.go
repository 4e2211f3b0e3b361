// Package sequence gives events and audit records their one order.
//
// # Why
//
// A reader of a database sequence skips a row that took its number early and
// committed late. So rows of events and audit_log carry no number at insert; the
// Sequencer numbers rows that are committed, in batches, and every reader
// follows that number alone. Numbers are contiguous: a reader knows that it
// missed nothing because there is nothing to miss.
//
// # Who owns which data
//
// Whoever changes something inserts events in its own transaction. events.seq,
// audit_log.seq, audit_log.hash and the sequencer row are written by the
// Sequencer alone. One server runs it (lease "sequencer"); two that both believe
// to be it are still right, because each batch is numbered under the lock on the
// sequencer row.
//
// # Wake-ups
//
// Polling (250 ms) guarantees; wake-ups make it fast. A writer calls Nudge after
// its commit. If this server leads, the numbering runs at once; otherwise one
// NOTIFY, outside of any transaction that users wait for and at most one per 5
// ms, wakes the leader. After a batch the leader pokes its own Hub and, by the
// same means, those of the other servers.
//
// # Readers
//
// A Hub keeps the newest events in memory once for all its subscribers, who hold
// nothing but a number. One that is slow falls out of that window and reads from
// the database until it has caught up; it never blocks another.
//
// # Audit chain
//
// hash = SHA-256(previous hash, canonical JSON of the row with its number); the
// first row follows 32 zero bytes. VerifyAudit walks the chain.
//
// # Crash, partition, duplicate
//
// A batch is one transaction: numbered and counted, or neither. A killed leader
// is replaced within a lease; meanwhile nothing is lost, only late.
//
// # What it does not do
//
// It does not delete old events; a reader that asks for a number older than the
// oldest kept gets ErrTooOld and starts over from the objects themselves.
package sequence
