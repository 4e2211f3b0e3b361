package migration

import (
	"fmt"
	"slices"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Request is what a person asks for.
type Request struct {
	// Node to move to, by its name or id; empty for whichever suits best.
	Node string
	// Reason is kept with the record.
	Reason string
	// Kind is how; empty for whichever suits: live for a VM that runs or is paused, cold for
	// one without a process. Warm is never chosen by itself.
	Kind Kind
	// Profile names a set of options, ProfileWAN, which those that are given come before.
	Profile string
	// Options are of a live migration.
	Options Options
	// Priority, from -MaxPriority to MaxPriority: of those that wait for their turn, the
	// higher go first.
	Priority int
}

// MaxReason bounds a reason, in bytes.
const MaxReason = 500

// MaxPriority bounds a priority, up and down.
const MaxPriority = 100

// bound is what a field may be.
type bound struct {
	broken         bool
	code           errs.Code
	pointer, limit string
	got            any
}

// Validate refuses what cannot be kept, or done, each field with its bounds.
func (r Request) Validate() error {
	options := r.Profile != "" || !r.Options.Empty()
	return refuse(slices.Concat(r.warmBounds(), []bound{
		{len(r.Reason) > MaxReason, errs.TooLarge, "/reason", fmt.Sprintf("up to %d bytes", MaxReason), len(r.Reason)},
		{r.Kind != "" && r.Kind != Cold && r.Kind != Live && r.Kind != Warm, errs.InvalidField, "/kind", "live, warm or cold, or absent for whichever suits", r.Kind},
		{r.Kind == Cold && options, errs.InvalidField, "/kind", "live, or absent: rates, downtimes and profiles are of live migrations", r.Kind},
		{r.Profile != "" && r.Profile != ProfileWAN, errs.InvalidField, "/profile", ProfileWAN + ", or absent", r.Profile},
		{r.Priority < -MaxPriority || r.Priority > MaxPriority, errs.OutOfRange, "/priority", fmt.Sprintf("%d to %d", -MaxPriority, MaxPriority), r.Priority},
	}, r.Options.bounds()))
}

// refuse tells of every bound that is broken.
func refuse(all []bound) error {
	var refused *errs.Error
	for _, b := range all {
		if !b.broken {
			continue
		}
		if refused == nil {
			refused = errs.New(b.code, "the migration is not possible as it is asked for: %s must be %s", b.pointer[1:], b.limit)
		}
		refused = refused.At(errs.Field{Code: b.code, Pointer: b.pointer, Message: "must be " + b.limit, Limit: b.limit, Got: fmt.Sprint(b.got)})
	}
	if refused == nil {
		return nil
	}
	return refused
}
