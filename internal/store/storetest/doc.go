// Package storetest gives every test its own migrated PostgreSQL database in a
// tenth of a second.
//
// # How
//
// One PostgreSQL serves all tests of a machine's user: the one that
// NOVACRON_TEST_DATABASE_URL names (a superuser's URL), else a private one under
// the temporary directory, without durability. A template database
// tpl_<hash of the migrations> is made once, under an advisory lock, in a temporary
// name that is renamed when done; each test clones it and drops its clone.
//
// # Life of the private server
//
// Test processes of one "go test" run in parallel and end at any time. Each
// holds a shared lock on the file users while it lives. The first one starts a
// keeper: the test binary itself, executed again with an environment variable
// that its init sees. The keeper runs PostgreSQL and ends it once nobody has
// held users for half a minute. Starting and ending happen under the lock start,
// so nobody is handed a server that is about to end. Locks are the kernel's:
// a killed test holds none. If the keeper is killed, PostgreSQL ends with it.
//
// The data outlives the server, so that the next run finds its template; after a
// reboot of the machine (data was never flushed) it is thrown away.
package storetest
