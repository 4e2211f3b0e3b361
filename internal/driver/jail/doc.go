// Package jail puts a process where it sees nothing of its host but what it needs.
//
// A jail is a mount, PID, IPC and UTS namespace of the process's own, a root that
// holds read-only what a Spec shows, and a network namespace that is made once per
// node and has no way out. It is a wall behind others: who lives in it also has a
// user of its own, no capabilities, a system call filter and a cgroup, which are
// others' business.
//
// # Order
//
//  1. the process is started into new namespaces (Flags)
//  2. Spec.Build mounts the new root over an empty folder; this takes a millisecond
//     and is done ahead of use
//  3. Spec.Enter adds what is known late (Bind), makes the new root the only one,
//     read-only, and enters the network namespace
//  4. Drop gives up every capability for good
//
// The first three need CAP_SYS_ADMIN. The process is number 1 of its PID namespace:
// when it ends, so does all that it may have started.
//
// # Crash
//
// Mounts belong to the process's namespace and vanish with it. Only the network
// namespace is kept, by a mount of its own (MakeNet), which RemoveNet takes away.
package jail
