// Package engine is the durable machinery: the private PostgreSQL (pglocal),
// who is alive and who leads (lease), work that survives any crash (workflow),
// the one order of events and audit records (sequence), and the repair of what
// nobody asked for (reconcile).
//
// It knows the database's tables servers, leases, jobs, job_steps, events,
// audit_log and sequencer, and no other: what a job does is its flow's business.
package engine
