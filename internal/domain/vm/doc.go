// Package vm holds the rules of virtual machines.
//
// # Three kinds of truth
//
// Intent is what the user wants; the control plane alone writes it. Observation
// is one incarnation of a VM on one node; that node's agent alone reports it.
// Appearance is what users see; nobody writes it: Appear computes it from a
// View, which one database query fills.
//
// # States and requests
//
// A State is a condition, one of 13; a Request is a verb. Decide answers what a
// request means for a VM as it appears: already done, an action, or a refusal
// that names both sides.
//
//	           create                 start
//	(nothing) ────────> pending ─> provisioning ─> starting ─> running <─┐
//	                                                  ^   pause │ ^resume│
//	          delete                       start      │         v │      │
//	(nothing) <──────── deleting <── stopped ─────────┘       paused     │
//	                       ^           ^                        │        │
//	                       │           └──── stopping <─────────┴────────┘
//	                     failed                stop
//
// A running or paused VM becomes suspended: its memory is on its node's disk and its
// process is gone. start and resume let it go on from there, as a new incarnation;
// stop gives the memory up.
//
// unknown covers any state of a VM whose node does not report: the last
// observation stands beneath it, untouched, until the node reports again or
// fencing proves it gone: an operator who removes the node by force states that
// its host is off. The VM is then lost with its disks: failed, and good for
// deletion only.
//
// # What a guest is told
//
// CloudInit is what cloud-init in a guest finds at its first boot: host name, keys,
// user data, network. Seed makes the files of it, the same bytes for the same
// intent; the VM's id in them is how cloud-init tells a machine from its clone. A
// guest finds that seed in its CD drive, or a CD of the user's own, or nothing.
//
// # Epochs
//
// The owner epoch rises when a new incarnation is launched or the owner
// changes, in the transaction that decides so, before any command goes out.
// Reports and commands under a lower one are refused on every side.
package vm
