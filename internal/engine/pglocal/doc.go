// Package pglocal runs the private PostgreSQL of one machine from the installed
// binaries, for "novacron up" and for tests.
//
// # What it owns
//
// One directory, and in it
//
//	data/   the database cluster (PGDATA)
//	run/    the UNIX socket, unless Options.SocketDir says otherwise
//	lock    held (flock) by the server process as long as it, or any process it
//	        forked, lives
//
// All of it belongs to Options.Owner with mode 0700. PostgreSQL refuses to run
// as root, so root names another owner; initdb and postgres then run under that
// uid and gid.
//
// # Who may connect
//
// The server listens on the UNIX socket alone, in a 0700 directory of its
// owner: nobody but that user and root can reach it. Authentication is
// therefore trust: whoever can open the socket can read the data files
// beside it, so a password would guard nothing and be one more secret to keep.
// Three roles: postgres (superuser, for repair), novacron_owner (owns the
// database and migrates it), novacron_server (the application's login, member of
// novacron_app, which can neither change the schema nor rewrite history).
//
// # Life
//
//	Prepare ──> Command (a supervisor runs it) ──> Ready
//	        └─> Start ─────────────────────────────> Ready ──> Stop
//
// SIGINT is PostgreSQL's fast stop: clients are disconnected, data is flushed.
//
// # Crash and duplicate
//
// The lock passes to the server as an open file, so it outlives whoever started
// it. When Prepare gets the lock, no process of an earlier server is left, and a
// postmaster.pid that lies there is stale whatever process has that number today: it
// is removed. When it does not, the error is ErrRunning; Connect tells how to use
// the server that runs, StopRunning stops it. initdb works in a directory of its
// own that is renamed when done: a crash half-way leaves nothing that looks like a
// database.
//
// # What it does not do
//
// It does not upgrade data from one major version to another: it picks the
// binaries that fit the data if they are installed and otherwise says what to do.
// It does not migrate the schema (package store does) nor back anything up.
package pglocal
