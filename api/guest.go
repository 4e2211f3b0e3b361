package api

import "time"

// VMGuest is what a guest says of itself, by its agent (qemu-guest-agent). It is read
// when it is asked for, and only as true as the guest is honest.
type VMGuest struct {
	// Agent is absent (none has opened the line), connected, or unresponsive.
	Agent   string `json:"agent"`
	Version string `json:"version,omitempty"`
	// Interfaces with their addresses, the loopback among them.
	Interfaces  []GuestInterface  `json:"interfaces"`
	FileSystems []GuestFileSystem `json:"file_systems"`
	// Memory is how the guest uses it, as the driver of its balloon tells; absent where
	// none does. It takes no agent.
	Memory *GuestMemory `json:"memory,omitempty"`
}

// GuestMemory is how a guest uses its memory. What it does not tell is absent.
type GuestMemory struct {
	// TotalBytes are what its kernel has to give, FreeBytes what nobody uses.
	TotalBytes Bytes `json:"total_bytes"`
	FreeBytes  Bytes `json:"free_bytes,omitempty"`
	// AvailableBytes could be given to programs without swapping; CacheBytes are held by
	// files.
	AvailableBytes Bytes `json:"available_bytes,omitempty"`
	CacheBytes     Bytes `json:"cache_bytes,omitempty"`
}

// GuestInterface is a network interface as the guest has it.
type GuestInterface struct {
	Name string `json:"name"`
	MAC  string `json:"mac,omitempty"`
	// Addresses with their prefix lengths, such as 10.0.0.5/24.
	Addresses []string `json:"addresses"`
}

// GuestFileSystem is a file system as the guest has it.
type GuestFileSystem struct {
	Path string `json:"path"`
	Type string `json:"type"`
	// TotalBytes and UsedBytes are absent where the guest does not tell.
	TotalBytes Bytes `json:"total_bytes,omitempty"`
	UsedBytes  Bytes `json:"used_bytes,omitempty"`
}

// VMExec runs a program in a guest.
type VMExec struct {
	// Command is the program and its arguments; no shell looks at it.
	Command []string `json:"command"`
	// Input is what it reads, in base64; with the command 64 KiB at most.
	Input []byte `json:"input,omitempty"`
	// TimeoutSeconds is how long it may take: 1 to 600, 60 by default.
	TimeoutSeconds *int64 `json:"timeout_seconds,omitempty"`
}

// VMExecResult is how a program in a guest ended.
type VMExecResult struct {
	// ExitCode is 128 and the signal for what a signal ended.
	ExitCode int `json:"exit_code"`
	Signal   int `json:"signal,omitempty"`
	// Stdout and Stderr are what it wrote, in base64, 256 KiB of each at most; Truncated
	// says that there was more.
	Stdout    []byte `json:"stdout"`
	Stderr    []byte `json:"stderr"`
	Truncated bool   `json:"truncated,omitempty"`
}

// VMFreeze has a guest's file systems frozen.
type VMFreeze struct {
	// Seconds until they are thawed: 1 to 60, 10 by default.
	Seconds *int64 `json:"seconds,omitempty"`
}

// VMFrozen says that a guest's file systems are frozen.
type VMFrozen struct {
	// Until is when they are thawed at the latest.
	Until time.Time `json:"until"`
	// Reason says why they could not be.
	Reason string `json:"reason,omitempty"`
}

// VMFreezeResult is what was frozen.
type VMFreezeResult struct {
	FileSystems int       `json:"file_systems"`
	Until       time.Time `json:"until"`
}

// VMThawed says that nothing is frozen any more.
type VMThawed struct{}
