package keeper

import (
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/driver/jail"
	"github.com/novacron/novacron/internal/vocab/gen"
)

// The hidden words that make the program a keeper or its second stage.
const (
	Face     = "keeper"
	ExecFace = "keeper-exec"
)

// Files of a VM's record folder that the keeper writes.
const (
	ProcFile = "proc.json"
	ExitFile = "exit.json"
	LockFile = "lock"
)

// File descriptors that the hypervisor finds open: listening UNIX sockets, and from
// FilesFD on the files that were handed to Start, and then a listening socket for
// each Aide.
const (
	ControlFD = 3
	SerialFD  = 4
	// FilesFD is above what the Go runtime of keeper-exec has open itself.
	FilesFD = 64

	specFD = 5
	// parkFD is where descriptors wait that are to go to FilesFD and up.
	parkFD = 512

	// lineFD is where a keeper finds the line to whoever started it.
	lineFD = 3
)

// Config is what a keeper is told.
type Config struct {
	// Dir is the VM's record folder.
	Dir string `json:"dir"`
	// Control, Serial and Socket are the paths of the sockets to make: the first
	// two for the hypervisor, the third is the keeper's own.
	Control string `json:"control"`
	Serial  string `json:"serial"`
	Socket  string `json:"socket"`
	// Epoch is noted in proc.json.
	Epoch gen.OwnerEpoch `json:"epoch"`
	// LogBytes bounds each of the two log segments.
	LogBytes int64 `json:"log_bytes"`
	// Exec is what the child becomes.
	Exec Exec `json:"exec"`
	// Aides are processes that serve the hypervisor outside its jail.
	Aides []Aide `json:"aides,omitempty"`
}

// Aide is a process beside the hypervisor that one of its sockets is led to: a
// user-mode network. It is started before the guest executes, and again, with a new
// connection, whenever it ends while the hypervisor lives.
type Aide struct {
	// Name is for people.
	Name string `json:"name"`
	// Socket is the path of the socket to make; the hypervisor finds it listening.
	Socket string `json:"socket"`
	// Ready is the path of a pipe to make, of this owner, that it says by that it is
	// ready.
	Ready string `json:"ready"`
	Owner int    `json:"owner"`
	// Path and Argv are the program and its arguments. It also gets "--fd" with a
	// connection to the socket, and "--pid" with the pipe.
	Path string   `json:"path"`
	Argv []string `json:"argv"`
}

// aideFD is where an Aide finds the connection.
const aideFD = 3

// Place is where a keeper and what becomes the hypervisor are started.
type Place struct {
	Groups Groups `json:"groups"`
	// Jail is the hypervisor's; nil leaves it among the host's files and processes.
	Jail *jail.Spec `json:"jail,omitempty"`
}

// Groups are the folders of cgroups that the keeper and what becomes the hypervisor
// are put into when they start; none where the host has no cgroups.
type Groups struct {
	Guest  []string `json:"guest,omitempty"`
	Keeper []string `json:"keeper,omitempty"`
}

// Exec says what keeper-exec confines itself to and becomes.
type Exec struct {
	Path string   `json:"path"`
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"`
	// Credential is whom to become; nil stays.
	Credential *Credential `json:"credential,omitempty"`
	Limits     []Limit     `json:"limits,omitempty"`
	// Binds are shown in the jail, beside what it was made with.
	Binds []jail.Bind `json:"binds,omitempty"`
	// Files is how many descriptors come with this, beside the two sockets.
	Files int `json:"files,omitempty"`
}

// Credential is a user and a group; supplementary groups become Groups.
type Credential struct {
	UID    int   `json:"uid"`
	GID    int   `json:"gid"`
	Groups []int `json:"groups,omitempty"`
}

// Limit is one resource limit of setrlimit(2), soft and hard alike.
type Limit struct {
	Resource int    `json:"resource"`
	Max      uint64 `json:"max"`
}

// Proc is proc.json.
type Proc struct {
	Epoch      gen.OwnerEpoch   `json:"epoch"`
	Keeper     process.Identity `json:"keeper"`
	Hypervisor process.Identity `json:"hypervisor"`
}

// maxFiles bounds what is handed over: what the kernel takes in one message, less
// the two that always go along (SCM_MAX_FD of include/net/scm.h is 253).
const maxFiles = 253 - 2

// Exit is exit.json: how the hypervisor ended.
type Exit struct {
	Epoch gen.OwnerEpoch `json:"epoch"`
	// Code is the exit code; -1 if it was killed.
	Code int `json:"code"`
	// Signal that killed it, or 0.
	Signal int `json:"signal,omitempty"`
	// At is wall time.
	At time.Time `json:"at"`
	// Said is the end of what it wrote to standard error.
	Said string `json:"said,omitempty"`
}

// report is the keeper's answer to the agent.
type report struct {
	Proc  Proc   `json:"proc"`
	Error string `json:"error,omitempty"`
}
