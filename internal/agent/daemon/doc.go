// Package daemon makes a process of an agent: the node's identity on disk, the
// join, the sessions with every server, the inventory of the host, and the
// drivers the host needs.
//
// The node's folder holds node.json (who it is, its incarnation, the servers it
// knows), key.pem (never leaves the host), cert.pem, ca.pem, and below them the
// agent's records, image cache and volumes. The incarnation is raised and
// fsynced before anything else happens at each start. A folder is locked by the
// process that uses it.
//
// Each server has a session of its own, dialled again with jittered back-off
// for ever. Losing all of them changes nothing for guests.
package daemon
