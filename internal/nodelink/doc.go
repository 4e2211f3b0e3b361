// Package nodelink is where control plane and agent meet: the messages between
// them and the session that carries these. Neither side imports the other.
//
// # The session
//
// The agent dials every server it knows with TLS 1.3 and the ALPN protocol
// novacron-node, and hands the connection over reversed: gRPC runs on it with
// the server as the client, so each server calls each agent directly and no
// host opens a management port. One long stream on the same connection, the
// uplink, carries the agent's own calls (hello, heartbeat, reports) up. Bulk
// data (consoles, logs, images) takes separate dialled-out connections
// (ALPN novacron-bulk), each opened with a one-time ticket.
//
// Messages are Go structs carried as JSON: fields are only ever added, unknown
// ones are ignored, so a newer server and an older agent understand each other.
// A golden file of their shapes catches an incompatible change.
//
// # Who fences what
//
// Every command about a VM carries a Header. The agent refuses a lower owner
// epoch, a lower attempt, and any step of an earlier operation; the same
// operation, step and attempt gets the same answer. The server closes an older
// connection of the same node when a hello with a higher node epoch arrives.
//
// # Crash, partition, duplicate
//
// A call whose connection dies returns errs.NodeUnreachable: whether it had an
// effect is unknown, and the caller repeats it under the same operation and
// step, which is harmless. Reports are repeated until acknowledged and carry
// numbers that only grow, so repeats and reordering change nothing.
package nodelink
