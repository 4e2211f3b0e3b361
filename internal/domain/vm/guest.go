package vm

import (
	"strings"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Bounds of a program that is run in a guest.
const (
	MaxProgramArgs  = 256
	MaxProgramBytes = 64 << 10 // of the command and its input together
	MaxProgramTime  = 10 * time.Minute
	// ProgramTime is how long one may take of which nothing is said.
	ProgramTime = time.Minute
)

// Program is what somebody wants to run in a guest.
type Program struct {
	// Command is the program and its arguments; no shell looks at it.
	Command []string
	Input   []byte
	Time    time.Duration
}

// Validate refuses what is not run in any guest.
func (p Program) Validate() error {
	v := validation{}
	size := len(p.Input)
	for _, a := range p.Command {
		size += len(a)
		if strings.ContainsRune(a, 0) {
			v.refuse(errs.InvalidField, "/command", "holds a NUL, which no argument can", "", "")
		}
	}
	v.between("/command", int64(len(p.Command)), 1, MaxProgramArgs, plain)
	if len(p.Command) > 0 && p.Command[0] == "" {
		v.refuse(errs.InvalidField, "/command/0", "names no program", "", "")
	}
	if size > MaxProgramBytes {
		v.refuse(errs.TooLarge, "/command", "is too long with its input", "64 KiB", plain(int64(size)))
	}
	v.between("/timeout_seconds", int64(p.Time/time.Second), 1, int64(MaxProgramTime/time.Second), plain)
	return v.err()
}
