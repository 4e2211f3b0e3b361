// Package chaos breaks migrations of real guests, everywhere and in every way that it
// knows, and looks whether anything was lost.
//
// # The bench
//
// Nodes are network namespaces, each with a link to the servers and to each other, and
// one to the network of the guests, which a bridge in each node and one between them
// make. A node has a file system of its own, that can be full, and one agent, which is
// the program's own, run by the test's binary: so that the hypervisor's driver can be
// stood before, real QEMU behind it. There are two servers, each with a relay to one real
// PostgreSQL that it can be cut from.
//
// The agents' drivers and the relays tell of points that a migration comes by (point.go
// has their names), and wait there until the bench lets them go on. So a fault comes at a
// point, exactly, and again at the same one.
//
// # A case
//
// A case is a point and a fault: "sent/kill-agent-source". The guest (package witness)
// counts, on its disk, to a datagram and over a TCP connection, while its memory and its
// disk are read back. A migration is asked for, the fault comes at the point and is
// healed a while later, and everything has a minute to be as it should. Then the oracle
// looks:
//
//   - the guest counted on and was never two: no number came twice or from behind, no two
//     starts of it took turns, no number that was told was missing from its disk (I1, I2)
//   - it was started anew only where the fault had ended the process that it was in
//   - its job has an end, and its row, and the one process that there is, and where that
//     is, agree (I3); of the other nodes none has a process, a folder, a tap or a group of
//     it (I4); its epoch grew with each change of its owner, by steps, and never fell (I5)
//   - a second request was refused with the job's id; servers that are away ended nothing (I6)
//   - the audit log verifies (I9)
//
// An oracle that was never seen to fail proves nothing: agents can be given a known
// mistake in each of the four steps of the commit rule, and each has to be found.
//
// `make chaos` runs all cases three times, and two hundred at random. A case that failed
// is run again by NOVACRON_CHAOS_CASE, the same draw by NOVACRON_CHAOS_SEED.
package chaos
