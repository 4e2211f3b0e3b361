// Package keeper is the small process that stays with one guest.
//
//	agent ──starts──> keeper ──starts──> keeper-exec ──exec──> hypervisor
//	      <─report──   (own session)     (confines itself)
//
// It outlives the agent: it drains the serial console (a guest whose console
// nobody reads stalls), keeps a bounded log of it, lets one writer and any number
// of readers attach, reaps the hypervisor and keeps how it ended.
//
// # Who owns what
//
// The keeper owns the VM's record folder while the lock file there is held: it
// writes proc.json, exit.json and the log segments. The driver that started it
// owns everything else, and cleans the folder up once the keeper is gone. The
// sockets (control, serial, keeper) are made by the keeper, mode 0600; the first
// two are handed to the hypervisor as open listeners, so that it needs no right
// to make files, and whoever connects is queued before it has even started.
//
// # Order of a start
//
//  1. a keeper is started, ahead of its use where it can be (Spare); it joins its
//     cgroups, starts keeper-exec and puts it into those of the guest; both wait
//  2. the agent locks the VM's folder and tells the keeper which guest it is for,
//     handing it the lock; the keeper makes the sockets
//  3. write proc.json: both processes, by pid, start time and boot; flushed
//  4. tell keeper-exec what to become; it confines itself and execs
//  5. attach to the serial console; report to the agent
//
// There is no moment at which a hypervisor exists that no record names: until
// step 4 the child is a waiting copy of this program that ends when the keeper
// does. keeper-exec builds its jail while it waits; told what to become, it enters
// it, sets limits and no_new_privs and drops to the VM's user.
//
// # Aides
//
// Beside the hypervisor the keeper runs what serves it outside of its jail, such as
// a user-mode network: started before the report of step 5, started again when it
// ends, ended with the hypervisor. Without the keeper an aide goes on, and ends with
// its socket.
//
// # Crash
//
//   - The agent dies: a spare ends. Otherwise nothing happens here. A keeper that was still starting goes
//     on to step 5 and waits; the guest does not execute until an agent says so.
//   - The keeper dies: the guest goes on. Its console is no longer drained, and
//     the hypervisor, seeing nobody attached, drops the output instead of
//     stalling. Adoption works by proc.json and the control socket; how the
//     hypervisor ends is then not known.
//   - The hypervisor dies: the rest of the console goes to the log, exit.json is
//     written and flushed, readers get their end, the keeper ends.
//   - The disk hangs or is full: the log loses bytes, the guest notices nothing.
//
// # What it does not do
//
// It does not speak to the hypervisor's control socket and decides nothing. It
// ignores the signals a terminal or a service manager sends to groups.
package keeper
