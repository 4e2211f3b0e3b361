package contract

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Migrator is what a driver also is whose Capabilities say Migrate. The order is
// Depart at the source, Receive at the target, Send at the source, Arrived at the
// target; then the caller decides whose the machine is. doc.go tells the theory.
type Migrator interface {
	// Depart examines whether a live machine can be moved and gives what its target must
	// know, and how it will be sent. Nothing of the machine changes, and there is nothing to take back; the last
	// departure of a machine counts, until its driver ends. errs.Unsupported or
	// errs.InvalidState for one that cannot be moved, with what to do.
	Depart(ctx context.Context, r Ref, migration id.ID, o MoveOptions) (Departure, error)
	// Receive starts a machine that executes nothing and waits for the memory and the
	// disks of a departure: phase incoming. The machine is the one that departs, under a
	// later epoch, with the files of this host; the disks that its guest may write to are
	// there, empty, as large as the departure says, on the same bases. Again for the same
	// migration it gives the same landing; errs.InvalidState once it has executed.
	Receive(ctx context.Context, m Machine, d Departure) (Landing, error)
	// Enter leads a stream that a source has dialled into a machine in phase incoming, and
	// returns, with the stream closed, once that has ended: with an error where it could not
	// begin. What comes from anybody but the source that departed goes nowhere.
	Enter(ctx context.Context, r Ref, s Stream, c io.ReadWriteCloser) error
	// Arrived waits until a machine in phase incoming has all, verified, and closes its
	// door. It still executes nothing: Resume lets it, Pause takes it over halted, Kill
	// ends it; before it has arrived, the first two are refused with errs.InvalidState. One
	// that was resumed or paused has arrived. errs.GuestFailure when it has ended.
	Arrived(ctx context.Context, r Ref) (Status, error)
	// Send moves a machine into a landing, through streams that dial opens to where Enter
	// is called. It returns nil once the target has everything and the machine is halted
	// here for good: phase paused, with SentAway for a reason. From then on two calls are
	// right: Kill, when the machine is the target's, or Resume, when the target is proven
	// dead and never executed. Any error, the end of ctx, and Kill break it off: then the
	// machine is as it was. A second call for what was sent succeeds. Progress, unless nil,
	// is called by one goroutine at a time, and must not block.
	Send(ctx context.Context, r Ref, to Landing, dial Dial, progress func(Progress)) (Status, error)
	// Adjust changes the means of a Send under way, from now until it ends; it does not
	// wait for it. What its guest does otherwise stays. errs.InvalidState where nothing is
	// being sent, errs.OutOfRange for what no driver does.
	Adjust(ctx context.Context, r Ref, a Adjustment) error
}

// Adjustment is what of a Send can be changed while it goes. What is zero stays.
type Adjustment struct {
	// Downtime as in MoveOptions.
	Downtime time.Duration
	// Throttle is the share of time, in percent, that the guest's processors are kept from
	// executing while they change memory faster than that is sent. It takes effect when that
	// was seen again, a few seconds later.
	Throttle int
}

// MaxThrottle bounds Adjustment.Throttle.
const MaxThrottle = 99

// Validate refuses what no driver does.
func (a Adjustment) Validate() error {
	switch {
	case a.Downtime < 0 || a.Downtime > MaxDowntime:
		return errs.New(errs.OutOfRange, "a downtime of %v: up to %v are possible", a.Downtime, MaxDowntime)
	case a.Throttle < 0 || a.Throttle > MaxThrottle:
		return errs.New(errs.OutOfRange, "processors slowed down by %d percent: up to %d are possible", a.Throttle, MaxThrottle)
	}
	return nil
}

// ErrNotSending refuses an adjustment of what is not being sent.
func ErrNotSending(v id.ID) error {
	return errs.New(errs.InvalidState, "VM %s is not being sent: there is nothing to adjust", v)
}

// Sampler is what a driver also is that can look at how fast a machine changes its memory.
type Sampler interface {
	// Sample looks at the memory of a live machine for about a second, and gives how much of
	// it changes within that, in bytes per second, rounded up to what the driver can tell.
	// The machine goes on. Several at once share one look. errs.InvalidState for one that
	// does not run yet, or is being moved.
	Sample(ctx context.Context, r Ref) (int64, error)
}

// SentAway is the reason of a machine that was sent and waits for its end.
const SentAway = "it was sent to another host"

// NotReceived is the reason of a machine in phase incoming that ended by itself.
const NotReceived = "its memory did not arrive"

// Dial opens a stream from the source of a move to the landing. The driver closes it.
type Dial func(ctx context.Context, s Stream) (io.ReadWriteCloser, error)

// Stream is what of a machine a connection between two hosts carries.
type Stream string

// The streams. Of each there may be several connections at once.
const (
	StreamMemory Stream = "memory"
	StreamDisks  Stream = "disks"
	// StreamAgain carries nothing: with it a source says that it begins the streams of disks
	// anew. Those there were have ended when it is let in, and nothing that came through one
	// of them is written any more.
	StreamAgain Stream = "again"
)

// Valid tells whether s is one of them.
func (s Stream) Valid() bool { return s == StreamMemory || s == StreamDisks || s == StreamAgain }

// Departure is what a target must know of a machine that is to come.
type Departure struct {
	Migration id.ID `json:"migration"`
	// Hypervisor and Version of the source, as in Description.
	Hypervisor string `json:"hypervisor"`
	Version    string `json:"version"`
	// Hardware is what the source's driver gave the machine beside what it was asked for.
	// It is for a driver of the same kind.
	Hardware json.RawMessage `json:"hardware,omitempty"`
	// Disks that go along, those that the guest may write to and that the other host does not
	// have already, with their sizes in bytes.
	Disks map[id.ID]int64 `json:"disks,omitempty"`
	// Medium in its drive, which is to be in that at the target; empty for none.
	Medium string `json:"medium,omitempty"`
	// Paused: was it halted, and not executing, when it departed?
	Paused bool `json:"paused,omitempty"`
	// Channels and Compression as in MoveOptions, which both ends must know.
	Channels    int    `json:"channels,omitempty"`
	Compression string `json:"compression,omitempty"`
	// Request is by what the target will know the source.
	Request []byte `json:"request"`
}

// Landing is what a source must know of where it sends to.
type Landing struct {
	Ref       `json:"ref"`
	Migration id.ID `json:"migration"`
	// Pass is by what the source shows who it is, a secret of the two; Authority is by what
	// it knows the target.
	Pass      []byte `json:"pass"`
	Authority []byte `json:"authority,omitempty"`
}

// MoveOptions say how a machine is moved. The zero value is a good one.
type MoveOptions struct {
	// BytesPerSecond bounds the rate of memory, and that of all disks; 0 for no bound.
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
	// Downtime is for how long the guest may be halted at the end, as far as that can be
	// foretold: 300 ms when 0.
	Downtime time.Duration `json:"downtime,omitempty"`
	// Patience is how long the end may take once the guest is halted, before the move is
	// given up and the guest goes on: 30 s when 0.
	Patience time.Duration `json:"patience,omitempty"`
	// AutoConverge slows the guest's processors down while it dirties memory faster than
	// that is sent.
	AutoConverge bool `json:"auto_converge,omitempty"`
	// Channels are so many connections at once for memory; 0 for one, without compression.
	Channels int `json:"channels,omitempty"`
	// Compression of memory: "zstd", or "" for none. It needs Channels.
	Compression string `json:"compression,omitempty"`
	// Warm has a driver that is a Warmer copy the disks in rounds until it is told to cut over.
	Warm bool `json:"warm,omitempty"`
	// Interval is how long a warm move rests between two rounds: DefaultInterval when 0.
	Interval time.Duration `json:"interval,omitempty"`
}

// Bounds and defaults of MoveOptions.
const (
	MaxChannels     = 16
	MaxDowntime     = 30 * time.Second
	DefaultDowntime = 300 * time.Millisecond
	DefaultPatience = 30 * time.Second
	// DefaultInterval lets little change between two rounds, and the network rest.
	DefaultInterval = 30 * time.Second
)

// Complete fills the defaults in and refuses what no driver does.
func (o MoveOptions) Complete() (MoveOptions, error) {
	if o.Downtime == 0 {
		o.Downtime = DefaultDowntime
	}
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	switch {
	case o.BytesPerSecond < 0 || o.Patience < 0 || o.Interval < 0:
		return o, errs.New(errs.OutOfRange, "a rate, a patience and an interval are 0 or more")
	case o.Downtime < time.Millisecond || o.Downtime > MaxDowntime:
		return o, errs.New(errs.OutOfRange, "a downtime of %v: 1 ms to %v are possible", o.Downtime, MaxDowntime)
	}
	return o, o.validateChannels()
}

func (o MoveOptions) validateChannels() error {
	switch {
	case o.Channels < 0 || o.Channels > MaxChannels:
		return errs.New(errs.OutOfRange, "%d channels: at most %d are possible", o.Channels, MaxChannels)
	case o.Compression != "" && o.Compression != "zstd":
		return errs.New(errs.InvalidField, "%q is no compression of memory: zstd, or nothing", errs.Clip(o.Compression))
	case o.Compression != "" && o.Channels == 0:
		return errs.New(errs.InvalidField, "memory is compressed where it has channels: give their number")
	}
	return nil
}

// Stage is how far a Send has come.
type Stage string

// The stages, in order.
const (
	StageDisks      Stage = "disks"      // the disks are copied; the guest executes
	StageWarm       Stage = "warm"       // instead of that, of a warm one: in rounds, until it is told to cut over
	StageMemory     Stage = "memory"     // memory is copied, again where it changed; the guest executes
	StageSwitchover Stage = "switchover" // the guest is halted, and the rest goes over
	StageSent       Stage = "sent"       // the target has everything
)

// Progress of a Send.
type Progress struct {
	Stage Stage `json:"stage"`
	// Of memory and of disks, in bytes.
	MemoryMoved     int64 `json:"memory_moved"`
	MemoryRemaining int64 `json:"memory_remaining"`
	DisksMoved      int64 `json:"disks_moved"`
	DisksRemaining  int64 `json:"disks_remaining"`
	// Rate at which memory moves, and at which the guest dirties it, in bytes per second.
	Rate      int64 `json:"rate"`
	DirtyRate int64 `json:"dirty_rate"`
	// Round counts how often memory that had changed was begun to be sent, the first being
	// all there is; 0 where that is not known.
	Round int64 `json:"round,omitempty"`
	// Throttle is the share of time, in percent, that the guest's processors are kept from
	// executing now.
	Throttle int `json:"throttle,omitempty"`
	// Warm is of a warm one; nil of any other.
	Warm *Warmth `json:"warm,omitempty"`
	// ExpectedDowntime while it moves, Downtime once it was sent: from the guest's halt to
	// the end of the stream.
	ExpectedDowntime time.Duration `json:"expected_downtime"`
	Downtime         time.Duration `json:"downtime"`
	// Total time since Send was called.
	Total time.Duration `json:"total"`
}

// Lands refuses a machine that is not the one that departs.
func (d Departure) Lands(m Machine) error {
	switch {
	case d.Migration == id.Nil || len(d.Request) == 0:
		return errs.New(errs.InvalidField, "a departure names its migration, and asks to be let in")
	case m.Incoming != "":
		return errs.New(errs.InvalidField, "VM %s goes on from a file, or receives its memory, not both", m.VM)
	case d.Medium != "" && !m.Drive, m.mediumID() != d.Medium:
		return errs.New(errs.InvalidField, "VM %s has another CD in its drive than where it comes from", m.VM)
	}
	writable := 0
	for _, k := range m.Disks {
		if !k.Moves() {
			continue
		}
		if _, ok := d.Disks[k.ID]; !ok {
			return errs.New(errs.InvalidField, "disk %s of VM %s does not come along", k.ID, m.VM)
		}
		writable++
	}
	if writable != len(d.Disks) {
		return errs.New(errs.InvalidField, "%d disks of VM %s come along, and it has %d here", len(d.Disks), m.VM, writable)
	}
	return nil
}

func (m Machine) mediumID() string {
	if m.Medium == nil {
		return ""
	}
	return m.Medium.ID
}

// ErrNotArrived refuses what a machine can do only with its memory.
func ErrNotArrived(v id.ID) error {
	return errs.New(errs.InvalidState, "VM %s still waits for its memory, which comes from another host: wait for it, or kill it", v)
}

// ErrSentAway refuses what a machine that was sent cannot do any more.
func ErrSentAway(v id.ID) error {
	return errs.New(errs.InvalidState, "VM %s was sent to another host, and stays halted here until it is decided whose it is", v)
}
