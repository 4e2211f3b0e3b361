// Package e2e tests the whole product as a person uses it: the real binary,
// private PostgreSQL, real QEMU (without KVM, so that it runs anywhere), real
// and simulated nodes, driven over the command line and the API. Each test has
// an instance of its own, in a folder of its own, and ends by looking at the
// host for anything left over: processes, files, sockets, cgroups, rows.
package e2e
