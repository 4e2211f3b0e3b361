// Package workflow runs work that takes time and must survive any crash.
//
// # What it is
//
// A Flow is a list of named steps with Do and Undo, written down in one file. A
// job is one run of a flow: a row in jobs, and a journal in job_steps. An
// Executor, one in each server, claims jobs and drives them. Any server can
// finish what another began.
//
// # Who owns which data
//
// jobs and job_steps are written by this package alone: Enqueue, Accept, Cancel,
// Retry and Wake inside the caller's transaction, everything else by the executor that
// holds the claim. The claim is (holder, fence): fence rises with each claim and
// goes along with every command as the attempt, so that a host refuses whoever
// lost it. Every write of an executor names both and changes nothing when they
// are no longer its own.
//
// # Births
//
// A server hands the jobs that it accepts to its own executor (Accept): they are
// inserted as claimed, after the steps at the head of the flow that are all in the
// database have run in the same transaction. After the commit the job is driven
// here without a look for work; a server that dies before leaves a claim like any
// other. A head step that does not come to its end leaves no trace, and the job is
// queued.
//
// # States
//
//	queued ──> running <──> waiting          running: a server executes it
//	             │  └──────────────────> succeeded
//	             v                           waiting: parked until wake_at or Wake
//	         unwinding ──> failed | cancelled
//	             │
//	             └──> needs_attention ──Retry──> where it stood
//
// A step's journal entry is running, then done; or failed; when the job unwinds
// undoing, then undone. Entries are never erased. A job unwinds iff it says so
// or its journal holds a failed, undoing or undone step.
//
// A step marked NoReturn is the point of no return: once it has begun, the job
// only goes forward; after about ten failures it stops as needs_attention and
// still holds its object, until an operator calls Retry.
//
// # Errors
//
// NodeUnreachable, Timeout and DBUnavailable are worth another try: the job is
// parked with back-off (state waiting, no goroutine held) and the step runs
// again, about 30 seconds in all, counted in failures in the journal. Any other
// error unwinds: first the undo of the failed step itself, which may have
// happened in part, then of every done step in reverse order. An undo that fails
// with one of the three, or with NoSpace, is retried until it works; any other
// failure of an undo is needs_attention, naming what is left.
//
// # Crash, partition, duplicate
//
// A killed server's jobs are claimed once its membership has run out (see package
// lease), continued at the first step that is not done. A step may thus run
// twice, and an undo may meet a step that never began: both must be idempotent,
// which package prove shows for every flow. A frozen or cut-off server loses the
// context of its steps before anyone else may claim; what it still writes is
// refused by the fence, here and on the host. With the database away nothing is
// claimed; steps under way end with their membership.
//
// # What it does not do
//
// It does not lock objects: the transaction that enqueues sets the hold (such as
// vms.job_id), Finish releases it. It does not order jobs beyond oldest first. It
// does not erase finished jobs.
package workflow
