// Package qmp speaks the QEMU Machine Protocol: JSON messages, one a line, over
// a UNIX socket that the hypervisor listens on.
//
// # Who owns what
//
// A Client owns its connection and one goroutine that reads it. Calls match
// their replies by id. Events go to one handler, called by the reading goroutine
// in the order they came and before any reply that came after them is delivered:
// whoever waits for the reply to "stop" has already seen the event STOP.
//
// # Crash, garbage, floods
//
// The peer is a process that runs a guest we do not trust. Lines are bounded, so
// is the number of messages in a second, and anything that is not a message of
// the protocol ends the connection with an error that says what came. A broken
// connection never touches the guest: the caller dials again. A peer that does
// not answer costs a call its context's time and nothing more; a late answer is
// dropped.
//
// # What it does not do
//
// It never reconnects by itself, and knows no commands: only names and JSON.
package qmp
