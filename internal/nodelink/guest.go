package nodelink

import (
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// AskGuest asks what a guest says of itself.
type AskGuest struct {
	VM    id.ID          `json:"vm"`
	Epoch gen.OwnerEpoch `json:"owner_epoch"`
}

// Method implements Command.
func (*AskGuest) Method() string { return "ask_guest" }

// GuestReply answers AskGuest.
type GuestReply struct {
	// Agent is absent, connected or unresponsive.
	Agent       string            `json:"agent"`
	Version     string            `json:"version,omitempty"`
	Interfaces  []GuestInterface  `json:"interfaces,omitempty"`
	FileSystems []GuestFileSystem `json:"file_systems,omitempty"`
	// Memory is nil where the guest does not tell.
	Memory *GuestMemory `json:"memory,omitempty"`
}

// GuestMemory is how a guest uses its memory; what it does not tell is 0.
type GuestMemory struct {
	TotalBytes     int64 `json:"total_bytes,omitempty"`
	FreeBytes      int64 `json:"free_bytes,omitempty"`
	AvailableBytes int64 `json:"available_bytes,omitempty"`
	CacheBytes     int64 `json:"cache_bytes,omitempty"`
}

// GuestInterface is a network interface as a guest has it.
type GuestInterface struct {
	Name string `json:"name"`
	MAC  string `json:"mac,omitempty"`
	// Addresses with their prefix lengths, as 10.0.0.5/24.
	Addresses []string `json:"addresses,omitempty"`
}

// GuestFileSystem is a file system as a guest has it.
type GuestFileSystem struct {
	Path       string `json:"path"`
	Type       string `json:"type"`
	TotalBytes int64  `json:"total_bytes,omitempty"`
	UsedBytes  int64  `json:"used_bytes,omitempty"`
}

// RunInGuest runs a program in a guest and waits for its end.
type RunInGuest struct {
	VM    id.ID          `json:"vm"`
	Epoch gen.OwnerEpoch `json:"owner_epoch"`
	Path  string         `json:"path"`
	Args  []string       `json:"args,omitempty"`
	Input []byte         `json:"input,omitempty"`
	// TimeMS is how long it may take, in milliseconds from arrival.
	TimeMS int64 `json:"time_ms"`
}

// Method implements Command.
func (*RunInGuest) Method() string { return "run_in_guest" }

// RunReply answers RunInGuest.
type RunReply struct {
	Code   int    `json:"code"`
	Signal int    `json:"signal,omitempty"`
	Output []byte `json:"output,omitempty"`
	Errors []byte `json:"errors,omitempty"`
	Cut    bool   `json:"cut,omitempty"`
}
