package contract

import (
	"context"
	"io"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Driver runs virtual machines on one host. Implementations are safe for
// concurrent use; calls about one VM are serialized by the driver.
type Driver interface {
	// Capabilities tells what this driver can do, as data.
	Capabilities() Capabilities
	// Describe looks at the host: hypervisor version and proved acceleration. The
	// first call may take seconds (a proof boots a tiny guest); the answer is
	// cached per kernel and hypervisor build.
	Describe(ctx context.Context) (Description, error)
	// Launch starts the machine and returns once the guest executes. On error no
	// process of this epoch is left, and the driver holds nothing of it; if the sink
	// has seen it starting, it sees it exited, "did not start".
	Launch(ctx context.Context, m Machine) (Status, error)
	// Shutdown asks the guest to power off (ACPI) and returns at once; the guest
	// may ignore it. Asking again is harmless, and so is asking one that has ended.
	// A paused guest stays paused and finds the request when it is resumed.
	Shutdown(ctx context.Context, r Ref) error
	// Kill ends the process without asking the guest and returns once it is
	// proven gone. Killing what is already gone succeeds.
	Kill(ctx context.Context, r Ref) (Status, error)
	// Pause halts the vCPUs; pausing a paused machine succeeds.
	Pause(ctx context.Context, r Ref) (Status, error)
	// Resume continues halted vCPUs; resuming a running machine succeeds.
	Resume(ctx context.Context, r Ref) (Status, error)
	// Inspect reports a VM's last incarnation, alive or ended, read from the host
	// now. errs.NotFound when the driver holds nothing of the VM.
	Inspect(ctx context.Context, vm id.ID) (Status, error)
	// Adopt finds every VM the driver holds on this host, takes up watching the
	// live ones, and returns all; what it returns is not sent to the sink as well.
	// It is called once, before any other call that names a VM, when the agent
	// starts. A guest that was asked to shut down and runs on is running: the asking
	// is over with who asked. An incarnation in phase starting was half launched when an agent died:
	// Launch for the same epoch does it anew, Kill removes it. One in phase incoming
	// still waits for its memory, or has it, and executes nothing (Migrator).
	Adopt(ctx context.Context) ([]Status, error)
	// Release removes everything the driver holds of a VM whose process is gone:
	// run folder, RAM file, cgroup, sockets, logs. Refused with errs.InvalidState
	// while a process lives. Releasing nothing succeeds.
	Release(ctx context.Context, vm id.ID) error
	// Console attaches to the serial console of a live machine. One writer at a
	// time: a further one is refused with errs.Conflict; closing frees it. Output
	// is live, preceded by nothing (history comes from Log).
	Console(ctx context.Context, r Ref) (io.ReadWriteCloser, error)
	// Log reads the bounded serial log of the last incarnation from its oldest
	// kept byte; follow makes it wait for more until the machine ends or ctx does.
	Log(ctx context.Context, vm id.ID, follow bool) (io.ReadCloser, error)
	// Close stops watching and frees the driver's own resources. Guests go on.
	Close() error
}

// DiskGrower is what a driver also is whose Capabilities say GrowDisk.
type DiskGrower interface {
	// GrowDisk makes a disk of a live machine larger and tells the guest. The size it
	// has already succeeds, a smaller one is refused with errs.ShrinkNotAllowed, a
	// disk that is not the machine's with errs.NotFound. Only the image changes: who
	// keeps volumes takes note by itself.
	GrowDisk(ctx context.Context, r Ref, disk id.ID, sizeBytes int64) error
}

// Suspender is what a driver also is whose Capabilities say Suspend.
type Suspender interface {
	// Suspend halts a live machine, writes its memory and its devices' state to a file
	// that does not exist yet, and ends the process: phase suspended. The file appears
	// whole and durable, or not at all, and with it the decision falls: before, the
	// guest goes on as it was, whatever was broken off, also by an agent that died;
	// from then on it is suspended. A second call for what is suspended succeeds. Where
	// the file's folder lacks room, errs.NoSpace, before anything happens. The end of
	// ctx takes it back.
	Suspend(ctx context.Context, r Ref, file string) (Status, error)
}

// Displayer is what a driver also is whose Capabilities say Display.
type Displayer interface {
	// Display opens the screen of a live machine, as a VNC server (RFC 6143) without a
	// password; several may be open at once. errs.Unsupported for a machine without
	// one. Closing it ends the viewer, not the machine.
	Display(ctx context.Context, r Ref) (io.ReadWriteCloser, error)
	// Screenshot gives what is on the screen now, as PNG.
	Screenshot(ctx context.Context, r Ref) ([]byte, error)
}

// Sink receives every change of a status the driver observes, in order per VM,
// including those its own calls caused; where calls overlap, a change may arrive
// just after the call that caused it has returned. It is called with no lock held
// and by one goroutine at a time. It must not block. A driver is constructed with
// one.
type Sink func(Status)

// Capabilities answers questions about a driver; callers ask these, never the
// driver's name.
type Capabilities struct {
	// Pause: can vCPUs be halted with memory kept?
	Pause bool
	// GrowDisk: can a disk grow while the guest runs (DiskGrower)?
	GrowDisk bool
	// Suspend: can memory be saved to a file, and a machine go on from it (Suspender)?
	Suspend bool
	// Migrate: can a machine that runs be moved to another host with this driver
	// (Migrator)?
	Migrate bool
	// Warm: can its disks be copied ahead, in rounds, while its guest executes (Warmer)?
	Warm bool
	// Seals: do the two ends of a move know each other, and encrypt all that they send, by
	// means of their own? Then its streams need no protection by who carries them.
	Seals bool
	// Shutdown: can the guest be asked to power off?
	Shutdown bool
	// Console: is there a serial console to attach to?
	Console bool
	// Media: is there a drive whose medium changes while the guest runs (MediaChanger)?
	Media bool
	// Display: is there a screen to look at (Displayer)?
	Display bool
	// GuestAgent: is there a line to an agent in the guest (Guester)?
	GuestAgent bool
	// Freeze: can the guest's agent halt its file systems (Freezer)?
	Freeze bool
	// UserNetwork: is there user-mode networking with port forwards?
	UserNetwork bool
	// CPUWeight and CPUCap: can a machine's share of the processors be weighted, and
	// capped (Limiter)?
	CPUWeight, CPUCap bool
	// DiskLimits: can the rates of a machine's disks be bounded (Limiter)?
	DiskLimits bool
	// Bridges of the host that machines may join; what is not among them is refused
	// with errs.Unsupported or errs.NotFound.
	Bridges []string
	// Confinement lists what isolates a guest's process here, such as "uid",
	// "cgroup" and "seccomp"; a page shows what is missing.
	Confinement []string
	// Unconfined lists what could isolate it and is not available, each with the
	// reason, for people.
	Unconfined []string
}

// Description is what a host's hypervisor is.
type Description struct {
	// Hypervisor is its name, such as "qemu".
	Hypervisor string
	// Version is the hypervisor's own version, such as "7.2.22".
	Version string
	// Acceleration is how guest code executes.
	Acceleration Acceleration
	// Machines are the types of boards that machines here can have, newest first.
	Machines []string
	// CPUs are the models of processors that they can have.
	CPUs []string
	// Firmware is what they can start by, "bios" the first.
	Firmware []string
}

// Acceleration is proved by booting a guest, never guessed from a device file.
type Acceleration struct {
	// Kind is "kvm", "tcg" or "simulated".
	Kind string
	// Reason says why it is not kvm, for people; empty for kvm.
	Reason string
}

// Ref names one incarnation of a VM.
type Ref struct {
	VM    id.ID          `json:"vm"`
	Epoch gen.OwnerEpoch `json:"epoch"`
}

// Machine is everything needed to launch one incarnation. No field holds text
// that a user typed, except Boot.Cmdline, which reaches the guest alone.
type Machine struct {
	Ref
	// CPUs is the number of vCPUs, at least 1.
	CPUs int
	// MemoryBytes is guest RAM, a multiple of 1 MiB.
	MemoryBytes int64
	// Type of its board, one of Description.Machines; empty for the newest.
	Type string
	// CPU is the model of its processor, one of Description.CPUs; empty for all that
	// the host can do. errs.Unsupported where the host does not have either.
	CPU string
	// Firmware is what it starts by, one of Description.Firmware; empty for BIOS.
	Firmware string
	// Variables is the file in which UEFI firmware keeps its own: made when it is not
	// there, with what the firmware comes with, and from then on the guest's. It belongs
	// to whom the disks belong.
	Variables string
	Boot      Boot
	// Disks in slot order: the guest sees /dev/vda, /dev/vdb, …
	Disks []Disk
	// CDs are in drives that the guest sees as /dev/sr0, /dev/sr1, …
	CDs  []CD
	NICs []NIC
	// Drive: is there a drive whose medium changes while the guest runs, behind those of
	// CDs? Drivers without Media leave it out. Medium is what is in it; nil for nothing.
	Drive  bool
	Medium *Medium
	// Incoming, unless empty, is a file of Suspend: the guest goes on from it instead of
	// starting. The machine is the one that was suspended, under a later epoch. The file
	// is gone, durably, before the guest executes; while it does not, it stays.
	Incoming string
	// Screen: is there a graphic card with a screen? Drivers without Display leave it
	// out.
	Screen bool
	// Limits hold from the guest's first instruction on.
	Limits Limits
}

// UEFI tells whether it has firmware that keeps variables.
func (m Machine) UEFI() bool { return m.Firmware != "" && m.Firmware != vm.FirmwareBIOS }

// Boot says what the guest starts from: its first disk by firmware when Kernel
// is empty, otherwise a kernel given directly.
type Boot struct {
	Kernel, Initrd string
	Cmdline        string
}

// Disk is an image file of ours on this host.
type Disk struct {
	ID       id.ID
	File     File
	Backing  *File // read-only base of our own overlay; nil means no backing, enforced
	ReadOnly bool
	// Shared: do other hosts have the same file? It does not go along when the machine
	// moves, and what is written to it is in no host's cache.
	Shared bool
}

// Moves tells whether what is on the disk goes along when its machine moves to another
// host: it is the guest's to write, and on this host alone.
func (d Disk) Moves() bool { return !d.ReadOnly && !d.Shared }

// CD is an image, raw, that guests only read. Several machines may have one in
// their drives at once.
type CD struct {
	ID   id.ID
	File File
	// Private: may nobody but this machine's guest read it? The driver then gives it
	// to that one's user; any other is readable for all already.
	Private bool
}

// File is a path and its explicit format, never probed.
type File struct {
	Path   string
	Format string // "qcow2" or "raw"
}

// NIC is one network interface.
type NIC struct {
	ID  id.ID
	MAC string // lower case, colons
	// Bridge of the host that it joins; empty for a user-mode network. Frames from
	// another address than MAC do not pass.
	Bridge string
	// Forwards are host ports led to the guest (user-mode network).
	Forwards []Forward
}

// Forward leads a TCP or UDP port of the host to the guest.
type Forward struct {
	Protocol  string // "tcp" or "udp"
	HostIP    string // an IP address of the host; "127.0.0.1" when empty
	HostPort  int
	GuestPort int
}

// Status is what a driver observed of the last incarnation of a VM.
type Status struct {
	Ref
	Phase vm.Phase
	// Reason says why, where the phase alone does not: "i/o error on disk vda",
	// "guest powered off", "killed by signal 9".
	Reason string
	// Since is wall time of the last change of phase, for display.
	Since time.Time
	// PID of the hypervisor process while Phase.OnNode(); 0 otherwise, and for
	// drivers without processes.
	PID int
}
