// Package serial keeps the bytes of a serial console while people come and go.
//
// A Ring holds the newest bytes of one console under absolute offsets, counted
// from the first byte the guest ever wrote. Its owner, a keeper or a simulated
// machine, writes and never waits: a slow reader loses the oldest bytes, a guest
// never stalls. Readers come at any offset and wait for more until the ring is
// closed, which happens when the machine ends.
//
// It keeps memory only; after a crash of its owner the ring is gone. What must
// survive is written to a file by the keeper as well.
package serial
