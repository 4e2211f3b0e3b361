package contract

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Warmer is what a Migrator also is whose Capabilities say Warm. Its Send of a machine that
// departed with MoveOptions.Warm copies the disks ahead, while the guest executes: first all
// of them, then, round by round, what has changed since. A stream that breaks, or stands
// still, is opened anew, and the round goes on with what it lacks, for as long as the target
// lives and ctx does. Once it is told to cut over, the guest is halted, the last round and all memory go,
// and Send ends as any other.
type Warmer interface {
	Migrator
	// Cutover has a warm Send come to its end, and does not wait for it. Again it changes
	// nothing. errs.InvalidState where none is under way.
	Cutover(ctx context.Context, r Ref) error
}

// Warmth is how far the rounds of a warm Send are.
type Warmth struct {
	// Rounds that have come to their end, and what the last of them took: bytes, and how
	// long.
	Rounds    int64         `json:"rounds"`
	LastBytes int64         `json:"last_bytes"`
	LastTook  time.Duration `json:"last_took"`
	// Changed since then, in bytes, as far as is known: what the next round is to copy.
	Changed int64 `json:"changed"`
	// Cut: is there no way to the target now? Cuts is how often there was none.
	Cut  bool  `json:"cut,omitempty"`
	Cuts int64 `json:"cuts,omitempty"`
}

// ErrNotWarm refuses to cut over what is not being copied in rounds.
func ErrNotWarm(v id.ID) error {
	return errs.New(errs.InvalidState, "the disks of VM %s are not being copied in rounds: there is nothing to cut over", v)
}

// TargetGone tells whether a stream cannot be opened because what it leads to is no more, and
// not because the way there is cut.
func TargetGone(err error) bool {
	return errs.Is(err, errs.InvalidState) || errs.Is(err, errs.NotFound) || errs.Is(err, errs.StaleEpoch)
}
