// Package hypertest is the conformance suite of hypervisor drivers: what the
// contract says, as tests. Every driver runs Exercise with a Harness that makes
// its kind of host; a sentence of the contract that is not tested here is not
// defined.
//
// Cases skip by capability and then assert the refusal. They wait on levels (a
// status seen by the sink, a text in the log) with a deadline, never for a time.
package hypertest
