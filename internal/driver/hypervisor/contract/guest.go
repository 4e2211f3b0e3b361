package contract

import (
	"context"
	"net/netip"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// AgentState is how the agent in a guest is.
type AgentState string

// The states of an agent.
const (
	// AgentAbsent: nobody in the guest has opened its end of the line.
	AgentAbsent AgentState = "absent"
	// AgentConnected: it answers.
	AgentConnected AgentState = "connected"
	// AgentUnresponsive: somebody has opened the line, and does not answer.
	AgentUnresponsive AgentState = "unresponsive"
)

// Guester is what a driver also is whose Capabilities say GuestAgent. What it tells of
// a guest is what the guest says: text of a stranger, bounded and cleaned.
type Guester interface {
	// Guest asks the agent of a live machine about the guest. An agent that is absent or
	// does not answer is no error: the state says so.
	Guest(ctx context.Context, r Ref) (Guest, error)
	// Glance asks for what is looked at often; it costs a fraction of Guest.
	Glance(ctx context.Context, r Ref) (Glance, error)
	// Run runs a program in the guest and waits for its end, or for the end of its time:
	// errs.Timeout then, and the program goes on. errs.GuestAgent without an agent that
	// answers, or when that refuses.
	Run(ctx context.Context, r Ref, p Program) (Outcome, error)
}

// Freezer is what a driver also is whose Capabilities say Freeze. While a guest's file
// systems are frozen they are whole on its disks, whatever writes to them waits, and its
// agent answers little else.
type Freezer interface {
	// Freeze has the agent in the guest of a live machine write out its file systems and
	// halt them, and tells how many; the time for that is ctx's. errs.InvalidState when
	// they are frozen already, errs.GuestAgent without an agent that answers, or when
	// that refuses; after another error they may be frozen, or become it.
	Freeze(ctx context.Context, r Ref) (int, error)
	// Thaw lets them go on; none that is frozen is no error. errs.GuestAgent without an
	// agent that answers.
	Thaw(ctx context.Context, r Ref) error
}

// Glance is what a guest says in passing.
type Glance struct {
	Agent AgentState
	// Frozen: are file systems frozen by the agent? Then it tells nothing else.
	Frozen bool
	// Told: has it told its interfaces?
	Told       bool
	Interfaces []GuestInterface
}

// Guest is what a guest says of itself.
type Guest struct {
	Agent AgentState
	// Version of the agent; empty unless it is connected.
	Version     string
	Interfaces  []GuestInterface
	FileSystems []GuestFileSystem
	// Memory is nil where no driver of its balloon tells. It takes no agent.
	Memory *GuestMemory
}

// GuestMemory is how a guest uses its memory, as its balloon driver tells. What it does
// not tell is 0.
type GuestMemory struct {
	// TotalBytes are what its kernel has to give, FreeBytes what nobody uses.
	TotalBytes, FreeBytes int64
	// AvailableBytes could be given to programs without swapping; CacheBytes, of files,
	// are part of that for the most part.
	AvailableBytes, CacheBytes int64
}

// Known gives the memory as far as it can be true of a machine of any size.
func (m GuestMemory) Known() GuestMemory {
	for _, n := range []*int64{&m.TotalBytes, &m.FreeBytes, &m.AvailableBytes, &m.CacheBytes} {
		if *n < 0 || *n > MaxMemoryBytes {
			*n = 0
		}
	}
	for _, n := range []*int64{&m.FreeBytes, &m.AvailableBytes, &m.CacheBytes} {
		*n = min(*n, m.TotalBytes)
	}
	return m
}

// GuestInterface is a network interface as the guest has it.
type GuestInterface struct {
	Name, MAC string
	Addresses []netip.Prefix
}

// GuestFileSystem is a file system as the guest has it.
type GuestFileSystem struct {
	Path, Type string
	// TotalBytes and UsedBytes are 0 where it does not tell.
	TotalBytes, UsedBytes int64
}

// Program is what to run in a guest.
type Program struct {
	Path  string
	Args  []string
	Input []byte
	// Time it may take.
	Time time.Duration
}

// Bounds of a Program and of its Outcome.
const (
	MaxProgramArgs  = 256
	MaxProgramBytes = 64 << 10 // of path, arguments and input together
	MaxProgramTime  = 10 * time.Minute
	MaxOutput       = 256 << 10 // of each stream
)

// Outcome is how a program ended.
type Outcome struct {
	// Code is its exit code; of what a signal ended, 128 and the signal.
	Code int
	// Signal that ended it, or 0.
	Signal int
	// Output and Errors are what it wrote, MaxOutput bytes of each at most; Cut says
	// that there was more.
	Output, Errors []byte
	Cut            bool
}

// Validate refuses programs that no driver runs.
func (p Program) Validate() error {
	size := len(p.Path) + len(p.Input)
	for _, a := range p.Args {
		size += len(a)
	}
	switch {
	case p.Path == "":
		return errs.New(errs.InvalidField, "the program to run in the guest is not named")
	case len(p.Args) > MaxProgramArgs || size > MaxProgramBytes:
		return errs.New(errs.TooLarge, "a program has up to %d arguments, and %d bytes with its input", MaxProgramArgs, MaxProgramBytes)
	case p.Time <= 0 || p.Time > MaxProgramTime:
		return errs.New(errs.OutOfRange, "a program in a guest may take up to %v", MaxProgramTime)
	}
	return nil
}
