package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// The exit codes, by what a script can do about them.
const (
	exitOK          = 0
	exitInternal    = 1
	exitInput       = 2
	exitNotFound    = 3
	exitConflict    = 4
	exitForbidden   = 5
	exitUnavailable = 6
	exitJob         = 7
	exitHost        = 8
	exitDiffers     = 9
	exitInterrupted = 130
)

const exitCodesText = `The exit code tells a script what it can do:

  0    it is done
  1    an internal or unknown error
  2    the command line or the input is wrong: change it
  3    the object does not exist
  4    the state of things stands against it (busy, in use, exists already,
       changed meanwhile, no node fits, runs already): look, then decide
  5    not signed in, not allowed, or the server is not the trusted one
  6    unavailable or too slow: the same command may succeed later
  7    the job was accepted and did not succeed
  8    this machine or a node lacks something: a program, a user, disk space
  9    'novacron diff' found a difference, and nothing is wrong
  130  interrupted

'novacron vm exec' ends as the program in the guest did.

With -o json or -o yaml the error itself is printed to standard error as a
document, whose "code" is stable.`

func newExitCodesTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesText}
}

// errInterrupted is the end by Ctrl-C or a signal.
var errInterrupted = errors.New("interrupted")

// errDiffers says that diff found a difference.
var errDiffers = errors.New("the documents differ from what there is")

// interrupted tells whether an error is only the consequence of an interrupt.
func interrupted(err error) bool {
	return errors.Is(err, context.Canceled) || client.CodeOf(err) == client.CodeInterrupted || errs.Is(err, errs.Cancelled)
}

// classes is the table from stable codes to exit codes. What is not here is
// internal.
var classes = map[string]int{
	string(errs.InvalidJSON):      exitInput,
	string(errs.InvalidYAML):      exitInput,
	string(errs.TooLarge):         exitInput,
	string(errs.UnknownField):     exitInput,
	string(errs.FieldNotWritable): exitInput,
	string(errs.InvalidField):     exitInput,
	string(errs.InvalidName):      exitInput,
	string(errs.InvalidID):        exitInput,
	string(errs.InvalidSize):      exitInput,
	string(errs.InvalidCursor):    exitInput,
	string(errs.InvalidFilter):    exitInput,
	string(errs.InvalidImage):     exitInput,
	string(errs.LengthMismatch):   exitInput,
	string(errs.ArchiveUnsafe):    exitInput,
	string(errs.URLForbidden):     exitInput,
	string(errs.OutOfRange):       exitInput,
	string(errs.Unsupported):      exitInput,
	string(errs.UnsupportedMedia): exitInput,
	client.CodeInvalidConfig:      exitInput,

	string(errs.NotFound): exitNotFound,

	string(errs.AlreadyExists):       exitConflict,
	string(errs.Conflict):            exitConflict,
	string(errs.VMBusy):              exitConflict,
	string(errs.InvalidState):        exitConflict,
	string(errs.InUse):               exitConflict,
	string(errs.GuestAgent):          exitConflict,
	string(errs.Protected):           exitConflict,
	string(errs.RevisionMismatch):    exitConflict,
	string(errs.IdempotencyReuse):    exitConflict,
	string(errs.StaleEpoch):          exitConflict,
	string(errs.StaleAttempt):        exitConflict,
	string(errs.NoNodeFits):          exitConflict,
	string(errs.NotCancellable):      exitConflict,
	string(errs.ImageMismatch):       exitConflict,
	string(errs.ShrinkNotAllowed):    exitConflict,
	string(errs.NodeRemoved):         exitConflict,
	string(errs.NodeQuarantined):     exitConflict,
	string(errs.NeedsAttention):      exitConflict,
	string(errs.RecoveryHold):        exitConflict,
	string(errs.RangeNotSatisfiable): exitInput,
	string(errs.OffsetMismatch):      exitConflict,
	string(errs.WrongServer):         exitConflict,

	string(errs.Unauthenticated): exitForbidden,
	string(errs.Forbidden):       exitForbidden,
	client.CodeUntrusted:         exitForbidden,

	string(errs.NodeUnreachable): exitUnavailable,
	string(errs.Timeout):         exitUnavailable,
	string(errs.DBUnavailable):   exitUnavailable,
	string(errs.RateLimited):     exitUnavailable,
	string(errs.Cancelled):       exitUnavailable,
	client.CodeUnreachable:       exitUnavailable,

	string(errs.HostFailure):  exitHost,
	string(errs.GuestFailure): exitHost,
	string(errs.NoSpace):      exitHost,

	client.CodeInterrupted: exitInterrupted,
}

// exitCode maps every error to its class: the only place that does.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errInterrupted) {
		return exitInterrupted
	}
	if errors.Is(err, errDiffers) {
		return exitDiffers
	}
	if e, ok := errors.AsType[guestExitError](err); ok {
		return e.code
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitInput
	}
	if _, ok := errors.AsType[*client.JobError](err); ok {
		return exitJob
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return exitUnavailable
	}
	public := publicError(err)
	if class, known := classes[public.Code]; known {
		return class
	}
	if public.Retryable {
		return exitUnavailable
	}
	return exitInternal
}

// publicError is the one shape of all errors: a server's, the SDK's, ours.
func publicError(err error) *api.Error {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	e, ok := errors.AsType[*errs.Error](err)
	if !ok {
		return &api.Error{Code: string(errs.Internal), Detail: err.Error()}
	}
	public := &api.Error{Code: string(e.Code), Detail: e.Message, Retryable: e.Code.Retryable(), Job: e.Job, Blockers: e.Blockers}
	for _, f := range e.Fields {
		public.Errors = append(public.Errors, api.FieldError{
			Code: string(f.Code), Field: f.Pointer, Message: f.Message, Limit: f.Limit, Got: f.Got,
		})
	}
	return public
}
