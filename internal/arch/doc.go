// Package arch holds the rules of the house and executes them as tests. It
// reads the source of the whole repository with go/parser and fails with what
// is wrong, where, and what to do about it.
//
//	floors      imports go downward only (the table in floors_test.go)
//	docs        every package says what it is for, once
//	size        500 lines for a Go file, 1,000 for a test
//	complexity  at most 10 decisions per function, counted as CONTRIBUTING says
//	clock       time comes from vocab/clock; tests do not sleep
//	status      every skipped test, and every test that is named as a proof,
//	            is in docs/status.md and exists
//
// It has no code that other packages could import.
package arch
