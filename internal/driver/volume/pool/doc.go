// Package pool is a folder that several nodes have: a storage pool. It tells which
// folder is which, whether it can be used from here, and who may write a volume in it.
//
// # What is in the folder
//
//	novacron-pool.json     the marker: the pool's id, and the format of all this
//	volumes/               what a volume driver keeps
//	claims/<volume>.json   who may write a volume, and under which epoch
//	claims/<volume>.guard  is locked while that changes
//
// The id, not the path, says which pool a folder is. The marker is made by the first
// node that finds a folder without one: it is written and flushed under another name and
// then linked, so that of several nodes one makes it and all read the same. A node that
// has seen a pool under a name makes no other there: a file system that is not mounted is
// an empty folder, too.
//
// # Claims
//
// A claim names a volume, its VM, the owner epoch, the node and that host's boot. It is
// taken before a process opens the volume for writing, and the epoch in it never falls:
// it is kept when the claim is released, and goes with the volume alone. Who has a lower
// epoch than it is refused (errs.StaleEpoch), and so is another node with the same one.
// Another node's that was not released is passed over only by who was told that its
// holder is done: see Claims.
//
// A change reads, decides and replaces (temporary file, flush, rename, flush of the
// folder) under an exclusive lock of the guard file, which is never replaced. A crash
// leaves the old claim or the new one, and the kernel, or the file server, the lock.
//
// # What it needs of a network file system
//
// Locks that hold between clients, and O_EXCL, link and rename that are atomic: NFS 4, or
// 3 with its lock service. A mount that keeps locks to itself (nolock, local_lock) is
// found in the table of mounts and refused.
//
// # What it does not do
//
// It does not end a process that has a volume open already: a claim is asked at the door.
package pool
