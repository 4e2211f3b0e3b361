// Package admit decides which requests are worked on, and when: how many of one
// asker in a while (Buckets), and how many at once (Fair). It does not know what a
// request is; askers are keys.
//
// # Buckets
//
// A token bucket per key, kept as one number: when the bucket is full again (the
// generic cell rate algorithm). A bucket that is full is like one that never was, so
// forgetting it changes nothing, and memory is bounded without giving anybody a
// fresh bucket: keys beyond the bound share one.
//
// # Fair
//
// A bounded number of places, shared by keys that nobody listed beforehand. A key
// takes a place while it has fewer than twice as many as are free (the dynamic
// threshold of switches' shared buffers). One key alone gets two thirds of the
// places, two get two fifths each, n get 2/(2n+1) each; some places stay free, so
// that whoever comes new does not wait for those who are there, however long these
// take. What a key wants beyond that waits in the key's own line; lines take turns.
//
// # What happens when
//
//   - A key floods: its line fills, the rest is refused at once. Others do not wait
//     for it.
//   - Many keys flood: each gets the same share. A new one takes one of the places
//     left free; with more keys than places it waits one turn.
//   - What is worked on hangs: its places stay taken, the key's line is refused after
//     the patience, and others go on in the places left free.
//   - An asker goes away while it waits: it leaves the line.
//
// Everything is in memory and of one process: a server that restarts forgets it, and
// several servers each give as much.
package admit
