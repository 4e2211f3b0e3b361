// Package reconcile runs the repair of what no request asked for.
//
// A Task takes no arguments: it reads everything, does bounded work, keeps no
// memory and returns a status that can be printed. It is activated by its period
// and by Nudge, which only says "now"; retrying is the next activation. One
// activation of a task runs at a time. A leader-only task runs on the one server
// that holds the lease "task:<name>".
//
// The Runner keeps, per task, the last status, error and durations in memory,
// for "novacron debug tasks"; nothing of it is stored. After a crash the next
// activation does what is left, on this or another server; two servers that run
// the same task at once for an instant must be harmless, which a task ensures by
// conditional writes or by its term.
package reconcile
