// Package prove shows that a workflow survives whatever happens to it.
//
// Prove runs the flow once per combination, each in a world of its own (or in
// one that the subject allows to be used again):
//
//   - it succeeds;
//   - each step fails, before and after its effect: the job unwinds, or, at and
//     past the point of no return, finishes once the failures stop;
//   - everything runs twice, each do on the way forward and each undo on the way
//     back from every step;
//   - the executor is killed before and after the do of each step, before and
//     after each undo, and before and after the end; another server, for which the
//     first is dead, finishes;
//   - it is cancelled at each step that allows it, before and after its effect.
//
// After each, the job has the state it must have, its journal tells so, the
// world's own Check holds, and the host has nothing left that no object accounts
// for: Leftovers reads that from the host, never from our records.
//
// The core gives findings instead of failing the test, so that this package's
// own tests can plant broken flows and see each of them found.
package prove
