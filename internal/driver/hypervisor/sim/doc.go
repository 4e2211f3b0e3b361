// Package sim is a hypervisor driver without a hypervisor. It ships in the
// binary: `novacron up --sim 1000` is a data centre on a laptop, and the same
// driver is the fault injector of the tests.
//
// # Who owns what
//
// A Host is one simulated machine: it owns the simulated guests, their consoles,
// their claimed ports and the faults that were ordered. A Driver is what an agent
// holds; it owns nothing but its sink. So an agent "restarts" by closing its
// Driver and making another one on the same Host, whose Adopt finds the guests as
// they are; Driver.Die ends a driver the way kill -9 would, with calls half done.
//
// # States
//
//	Launch ──> starting ──> running <──> paused
//	              │            │ Shutdown       │
//	              │            v                │
//	              │         stopping            │
//	              v            v                v
//	           crashed   exited or crashed, by whatever ends it
//
// In Auto mode each transition happens by itself after its configured latency
// (none by default: then it has happened when the call returns). In Explicit mode
// each waits until a test calls Host.Poke for that VM, so that a test can stand
// between any two states.
//
// # Crash, partition, duplicate
//
// With Options.Dir the machines survive the process too: one file each, written
// before a change is told to anyone. What waits in a gate (a pending shutdown)
// does not survive; the guest then simply goes on, as a guest that missed the
// button. Duplicate calls are answered as the contract says.
//
// # The oracle
//
// Executing counts the guests with running vCPUs per VM over any number of hosts;
// a count above one is a broken invariant I1. Host.Leftovers lists what is still
// held, for "afterwards nothing is left over".
//
// # What it does not do
//
// It executes nothing, opens no image and binds no port; disks are checked by
// form only. A port forward is claimed against other simulated guests of the host.
package sim
