package node

import "github.com/novacron/novacron/internal/vocab/errs"

// ShutdownPolicy says what a node does with its guests when its host shuts down in
// order.
type ShutdownPolicy string

// The policies.
const (
	// ShutdownStop asks each guest to shut down, and powers off what does not.
	ShutdownStop ShutdownPolicy = "stop"
	// ShutdownSuspend saves each guest's memory, and has it go on from there when the
	// host starts again; what cannot be suspended is stopped.
	ShutdownSuspend ShutdownPolicy = "suspend"
	// ShutdownLeave does nothing: guests end with their host, as by a loss of power, or
	// go on where it goes on.
	ShutdownLeave ShutdownPolicy = "leave"
)

// Validate refuses what is no policy.
func (p ShutdownPolicy) Validate() error {
	switch p {
	case ShutdownStop, ShutdownSuspend, ShutdownLeave:
		return nil
	}
	return errs.New(errs.InvalidField, "a node's shutdown policy is stop, suspend or leave").
		At(errs.Field{Pointer: "/shutdown_policy", Message: "must be stop, suspend or leave", Limit: "stop, suspend, leave", Got: errs.Clip(string(p))})
}
