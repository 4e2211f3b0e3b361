// Package local is "novacron up": everything on this machine, as separate
// processes under one supervisor, so that killing one of them is real.
//
//	up ─┬─ postgres            user novacron when up is root
//	    ├─ novacron server     user novacron when up is root
//	    ├─ novacron agent      one per node; root when up is root
//	    └─ novacron agent --sim N
//
// # What it owns
//
// The data folder (see Paths): the database, the server's key and images, the
// nodes, logs, a marker that says "novacron up" made it, and a lock. The run
// folder: sockets, and state.json, which says who runs. Both are removed by Clean
// and by nothing else, and only when the marker is there.
//
// # Order
//
// Start: lock, checks, PostgreSQL, server, tokens for nodes that have no identity
// yet, agents. Stop: agents with SIGINT (their guests shut down gracefully, their
// intent stays, so that the next start runs them again), server, PostgreSQL. A
// second signal hurries: agents get SIGTERM, and guests go on.
//
// # Crash
//
//   - A child dies: it is started again with back-off; guests notice nothing.
//   - up is killed: its children get their stop signal from the kernel
//     (parent-death signal), agents SIGTERM, which leaves guests alone. Guests are in
//     sessions of their own. The next up ends whatever child is still there (by pid
//     and start time, from state.json), starts its own, and the agents adopt the
//     guests.
//   - The machine restarts: agents start what their records say.
//
// # Twice
//
// The lock admits one up per data folder. Two data folders have two run folders,
// so several instances live on one machine.
//
// # What it does not do
//
// It is no init system: where one is, "novacron server" and "novacron agent" are
// its services.
package local
