package nodelink

import (
	"encoding/json"

	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// The move of a VM that runs, with the id of its operation. The control plane has the
// target prepared (TakeVM with Live), asks the source to depart, the target to receive,
// and the source to send. From then on the two nodes settle it between themselves, as
// package agent tells: the target asks for the swap. What the nodes' drivers tell each
// other is theirs, and passes through as it is.

// MoveOptions say how a VM that runs is moved; see hypervisor contract.MoveOptions.
type MoveOptions struct {
	BytesPerSecond int64  `json:"bytes_per_second,omitempty"`
	DowntimeMS     int64  `json:"downtime_ms,omitempty"`
	PatienceMS     int64  `json:"patience_ms,omitempty"`
	AutoConverge   bool   `json:"auto_converge,omitempty"`
	Channels       int    `json:"channels,omitempty"`
	Compression    string `json:"compression,omitempty"`
	// Warm: are the disks copied in rounds, IntervalMS apart, until CutoverVM?
	Warm       bool  `json:"warm,omitempty"`
	IntervalMS int64 `json:"interval_ms,omitempty"`
}

// DepartVM asks the node that runs a VM what another must know to receive it.
type DepartVM struct {
	Header
	Options MoveOptions `json:"options"`
}

// Method implements Command.
func (*DepartVM) Method() string { return "depart_vm" }

// Departed answers DepartVM, in words of the driver.
type Departed struct {
	Departure json.RawMessage `json:"departure"`
}

// ReceiveVM has a node start a machine that waits for the memory of one that runs on
// another node, and open a door for that node alone, to whoever has the ticket.
type ReceiveVM struct {
	Header
	From      id.ID           `json:"from"`
	Ticket    string          `json:"ticket"`
	Machine   Machine         `json:"machine"`
	Departure json.RawMessage `json:"departure"`
}

// Method implements Command.
func (*ReceiveVM) Method() string { return "receive_vm" }

// Received answers ReceiveVM.
type Received struct {
	Landing json.RawMessage `json:"landing"`
	Address string          `json:"address"`
	// Bare: may what the drivers send each other come through that door as it is, because
	// they seal it? See hypervisor contract.Capabilities.Seals.
	Bare bool `json:"bare,omitempty"`
}

// SendVM has a node send a VM that runs to the door of another, and answers once it is
// settled whose the VM is.
type SendVM struct {
	Header
	To      id.ID           `json:"to"`
	Address string          `json:"address"`
	Ticket  string          `json:"ticket"`
	Landing json.RawMessage `json:"landing"`
	// Bare as in Received.
	Bare bool `json:"bare,omitempty"`
	// BytesPerSecond that it may take at first, on all streams together; see PaceMove.
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
	// Stall says what to do where it stalls; absent for nothing.
	Stall *StallPolicy `json:"stall,omitempty"`
	// Warm, of a departure that is: the answer comes at once, and the node goes on by itself.
	// How far it is, and what came of it, AskMove tells; SettleVM breaks it off.
	Warm bool `json:"warm,omitempty"`
}

// CutoverVM has a warm move of the command's operation come to its end. Again it changes
// nothing.
type CutoverVM struct{ Header }

// Method implements Command.
func (*CutoverVM) Method() string { return "cutover_vm" }

// StallPolicy is what a source does when a guest's memory does not come nearer to its end
// while it is sent: the steps of package migration, in their order.
type StallPolicy struct {
	Steps []string `json:"steps"`
	// DowntimeMS is for how long the guest may be halted at first, MaxDowntimeMS at all.
	DowntimeMS    int64 `json:"downtime_ms"`
	MaxDowntimeMS int64 `json:"max_downtime_ms"`
}

// Method implements Command.
func (*SendVM) Method() string { return "send_vm" }

// Verdict is what became of a move.
type Verdict string

// The verdicts. Until there is one, the VM executes at its source, or nowhere.
const (
	// Undecided: nothing is settled yet.
	Undecided Verdict = ""
	// Swapped: the VM is the target's, and executes there; at the source it may only be
	// killed.
	Swapped Verdict = "swapped"
	// Abandoned: the target has given it up, for good, and its process is gone. The source
	// goes on.
	Abandoned Verdict = "abandoned"
	// Disowned: the VM is neither's. Both processes go.
	Disowned Verdict = "disowned"
)

// SettleVM brings the move of the command's operation to its verdict on one of the two
// nodes. To the target, without a verdict, it says that nobody waits any more: unless it is
// about to have the VM, or has it, it gives up. To the source it brings the target's
// verdict.
type SettleVM struct {
	Header
	Verdict Verdict `json:"verdict,omitempty"`
}

// Method implements Command.
func (*SettleVM) Method() string { return "settle_vm" }

// MoveReply answers SendVM and SettleVM.
type MoveReply struct {
	Verdict  Verdict      `json:"verdict"`
	Progress MoveProgress `json:"progress"`
	// Paused: was the guest halted, before the move halted it?
	Paused bool `json:"paused,omitempty"`
}

// AskMove asks the source how far a move is, or the target whether it still waits for it.
type AskMove struct {
	VM        id.ID `json:"vm"`
	Migration id.ID `json:"migration"`
}

// Method implements Command.
func (*AskMove) Method() string { return "ask_move" }

// MoveProgress answers AskMove. Bytes, bytes per second, milliseconds.
type MoveProgress struct {
	Stage              string `json:"stage,omitempty"`
	MemoryMoved        int64  `json:"memory_moved,omitempty"`
	MemoryRemaining    int64  `json:"memory_remaining,omitempty"`
	DisksMoved         int64  `json:"disks_moved,omitempty"`
	DisksRemaining     int64  `json:"disks_remaining,omitempty"`
	Rate               int64  `json:"rate,omitempty"`
	DirtyRate          int64  `json:"dirty_rate,omitempty"`
	ExpectedDowntimeMS int64  `json:"expected_downtime_ms,omitempty"`
	DowntimeMS         int64  `json:"downtime_ms,omitempty"`
	TotalMS            int64  `json:"total_ms,omitempty"`
	// Round is of memory, and Throttle the share of time, in percent, that the guest's
	// processors are kept from executing.
	Round    int64 `json:"round,omitempty"`
	Throttle int   `json:"throttle,omitempty"`
	// Relayed: a server carries it, because the nodes do not reach each other.
	Relayed bool `json:"relayed,omitempty"`
	// Taken are the steps that were taken because it stalled, oldest first.
	Taken []StallStep `json:"taken,omitempty"`
	// Warm is of a warm move.
	Warm *Warmth `json:"warm,omitempty"`
	// Going: is the source about it, or does the target wait for it? Failed is why a warm one
	// is not any more, and Verdict what came of it, as far as this node knows.
	Going   bool       `json:"going,omitempty"`
	Failed  *WireError `json:"failed,omitempty"`
	Verdict Verdict    `json:"verdict,omitempty"`
}

// Warmth is how far the rounds of a warm move are; see hypervisor contract.Warmth.
type Warmth struct {
	Rounds     int64 `json:"rounds"`
	LastBytes  int64 `json:"last_bytes,omitempty"`
	LastTookMS int64 `json:"last_took_ms,omitempty"`
	Changed    int64 `json:"changed,omitempty"`
	Cut        bool  `json:"cut,omitempty"`
	Cuts       int64 `json:"cuts,omitempty"`
}

// StallStep is one step that was taken because a move stalled.
type StallStep struct {
	// Key tells it from all others.
	Key    string `json:"key"`
	Step   string `json:"step"`
	Stall  string `json:"stall"`
	Reason string `json:"reason"`
	// Throttle and DowntimeMS are what the move is given from then on.
	Throttle   int   `json:"throttle,omitempty"`
	DowntimeMS int64 `json:"downtime_ms,omitempty"`
	// AgeMS is how long ago that was, when it was told.
	AgeMS int64 `json:"age_ms"`
}

// SampleMemory asks how fast a VM's guest changes its memory: it is looked at for about a
// second, and goes on.
type SampleMemory struct {
	VM    id.ID          `json:"vm"`
	Epoch gen.OwnerEpoch `json:"owner_epoch"`
	// KnownWithinMS: what the node saw no longer ago than that will do; 0 for a look now.
	KnownWithinMS int64 `json:"known_within_ms,omitempty"`
}

// Method implements Command.
func (*SampleMemory) Method() string { return "sample_memory" }

// MemorySample answers SampleMemory, in bytes per second.
type MemorySample struct {
	DirtyRate int64 `json:"dirty_rate"`
	// AgeMS is how long ago that was seen; 0 for now.
	AgeMS int64 `json:"age_ms,omitempty"`
}

// MethodSwap is the uplink's call by which the target of a move asks for the VM.
const MethodSwap = "swap"

// Swap asks that a VM become the calling node's: it has all of it, and the source has
// halted it. Any server answers, and the same again for the same migration.
type Swap struct {
	NodeEpoch gen.NodeEpoch `json:"node_epoch"`
	Migration id.ID         `json:"migration"`
	VM        id.ID         `json:"vm"`
	// Epoch is the owner epoch that the source has.
	Epoch gen.OwnerEpoch `json:"owner_epoch"`
}

// SwapReply answers Swap.
type SwapReply struct {
	Verdict Verdict `json:"verdict"`
	// Epoch under which the VM is the caller's, when it was swapped.
	Epoch gen.OwnerEpoch `json:"owner_epoch,omitempty"`
	// Why it was not.
	Why string `json:"why,omitempty"`
}
