// Package flows holds the workflows: one file each, readable from top to
// bottom. A flow says when it runs, what it leaves when it unwinds, its
// parameters, and its steps with what undoes them.
//
// Steps see the narrow Env and nothing else of the server. Writes go through
// Run.InTx, so that a server that lost its claim writes nothing; commands carry
// the job as operation and the claim as attempt, so that a node refuses it too.
// Every flow in All has a proof in this package's tests; one without fails the
// build.
package flows
