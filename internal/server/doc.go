// Package server is the control plane's process: the HTTPS API, the event
// stream, the agents' sessions, and the loops behind them. It turns documents
// into use-cases of package control and back, and decides nothing itself.
//
// # One port
//
// Everything arrives at one TLS 1.3 port and parts by ALPN: people and programs
// (HTTP/1.1), agents (novacron-node, novacron-bulk: client certificates of the
// internal authority are asked for there only), joining agents (novacron-join).
// The local user comes over a UNIX socket of mode 0600 and is known by the
// kernel's word for the peer's uid.
//
// # One gate
//
// Every route is in one table with what it needs; the gate authenticates,
// decides by auth.May, writes refusals to the audit log, and only then calls
// the handler. A route cannot be registered outside of it, and a test walks the
// table with every kind of credential.
//
// # Stateless
//
// A server may die at any moment: sessions are dialled again by the agents, jobs
// are claimed by other servers, event readers resume by number. A clean stop
// gives claims back at once.
package server
