package nodelink

import "github.com/novacron/novacron/internal/vocab/id"

// OfferVM has a node offer its copy of a VM that has no process to one other node, once,
// as OfferImage does. The VM rests there from then on.
type OfferVM struct {
	Header
	To      id.ID   `json:"to"`
	Ticket  string  `json:"ticket"`
	Volumes []id.ID `json:"volumes"`
	// Live: the VM may run; its disks go by another way (SendVM), and are left out.
	Live bool `json:"live,omitempty"`
	// BytesPerSecond that it may take at first; see PaceMove.
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
}

// Method implements Command.
func (*OfferVM) Method() string { return "offer_vm" }

// TakeVM has a node make a copy of a VM that another one offers: its disks, its seed, the
// variables of its firmware, its saved memory. What it held of the VM before goes first.
type TakeVM struct {
	Header
	Source  ImageSource  `json:"source"`
	Volumes []VolumeSpec `json:"volumes"`
	// Live: the disks are made empty, for what will be written to them.
	Live bool `json:"live,omitempty"`
}

// Method implements Command.
func (*TakeVM) Method() string { return "take_vm" }

// TakeReply answers TakeVM.
type TakeReply struct {
	// Bytes came.
	Bytes int64 `json:"bytes"`
	// Relayed: a server carried them, because the nodes do not reach each other.
	Relayed bool `json:"relayed,omitempty"`
}

// AskTransfer asks how far the taking of a VM is.
type AskTransfer struct {
	VM id.ID `json:"vm"`
}

// Method implements Command.
func (*AskTransfer) Method() string { return "ask_transfer" }

// Transfer answers AskTransfer.
type Transfer struct {
	// Bytes came so far.
	Bytes int64 `json:"bytes"`
	// Relayed: a server carries them, because the nodes do not reach each other.
	Relayed bool `json:"relayed,omitempty"`
}
