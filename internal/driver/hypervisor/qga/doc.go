// Package qga speaks with qemu-guest-agent, a program in a guest.
//
// The guest is a stranger: whatever runs there may answer instead of the agent. So a
// conversation begins with guest-sync-delimited, behind which everything that came
// before is forgotten; every answer is one line of at most MaxReply bytes; what comes
// without being an answer counts against that; and whoever asks bounds the time, at
// whose end the connection is closed. Nothing that came is believed to be more than
// text: addresses are parsed, numbers are bounded, and lists are cut.
//
// A conversation is one connection: QEMU leads one at a time to the guest. It keeps
// nothing, and starts nothing.
package qga
