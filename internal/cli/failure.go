package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/local"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// report prints an error to standard error: what happened, to what, what stands
// in the way, and what to do next.
func (a *app) report(cmd *cobra.Command, err error) {
	_, guest := errors.AsType[guestExitError](err)
	if guest || errors.Is(err, errDiffers) {
		return // what differs, or what a program in a guest says, is said already
	}
	f, _ := output.Parse(a.flags.output)
	p := output.Printer{Out: a.err, Format: f, Colour: a.colour(a.err)}
	if f.ForPrograms() && !errors.Is(err, errInterrupted) {
		_ = p.Document(errorDocument(err))
		return
	}
	if errors.Is(err, errInterrupted) {
		fmt.Fprintln(a.err, "interrupted")
		return
	}
	if u, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(a.err, "%s %s\n  see: %s\n", p.Bold("error:"), u.msg, u.help)
		return
	}
	if j, ok := errors.AsType[*client.JobError](err); ok {
		a.reportJob(p, j.Job)
		return
	}
	a.reportError(p, cmd, err)
}

func (a *app) reportError(p output.Printer, cmd *cobra.Command, err error) {
	e := publicError(err)
	fmt.Fprintf(a.err, "%s %s (%s)\n", p.Bold("error:"), output.Clean(e.Detail), output.Clean(e.Code))
	line := func(format string, args ...any) {
		fmt.Fprintf(a.err, "  %s\n", output.Clean(fmt.Sprintf(format, args...)))
	}
	if cause := causeOf(err, e); cause != "" {
		line("because: %s", cause)
	}
	for _, f := range e.Errors {
		line("%s", fieldLine(f))
	}
	if len(e.Blockers) > 0 {
		line("in the way: %s", strings.Join(e.Blockers, ", "))
	}
	if e.Job != "" {
		line("held by job %s", e.Job)
	}
	if next := nextCommand(cmd, e); next != "" {
		line("next: %s", next)
	}
	if e.RequestID != "" {
		line("request: %s", e.RequestID)
	}
}

// causeOf gives the cause of an error that arose on this side; a server's causes
// stay in its log.
func causeOf(err error, public *api.Error) string {
	if ours, ok := errors.AsType[*errs.Error](err); ok {
		if cause := ours.Unwrap(); cause != nil && !errors.Is(cause, local.ErrRunning) {
			return cause.Error()
		}
		return ""
	}
	return strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(err.Error(), public.Code), public.Detail), ": ")
}

func fieldLine(f api.FieldError) string {
	s := f.Field + ": " + f.Message
	var more []string
	if f.Got != "" {
		more = append(more, "got "+f.Got)
	}
	if f.Limit != "" {
		more = append(more, "limit "+f.Limit)
	}
	if len(more) > 0 {
		s += " (" + strings.Join(more, ", ") + ")"
	}
	return s
}

// nextCommand is what a person would most likely run next.
func nextCommand(cmd *cobra.Command, e *api.Error) string {
	if e.Job != "" {
		return "novacron job wait " + e.Job
	}
	switch e.Code {
	case string(errs.NotFound):
		if noun := nounOf(cmd); noun != "" {
			return "novacron " + noun + " list"
		}
	case string(errs.Unauthenticated):
		return "novacron context add NAME --address HOST:PORT --fingerprint F --token -"
	case client.CodeUnreachable:
		return "novacron context list, or novacron up --detach on this machine"
	case client.CodeUntrusted:
		return "compare with the fingerprint that 'novacron status' shows on the server's own machine"
	case string(errs.NoNodeFits):
		return "novacron node list -o wide"
	case string(errs.RevisionMismatch):
		if nounOf(cmd) != "" {
			return "the same command again: it was changed by someone else meanwhile"
		}
	case string(errs.NodeRemoved):
		if noun := nounOf(cmd); noun == "vm" && cmd.Flags().NArg() > 0 {
			return "novacron vm delete " + cmd.Flags().Arg(0)
		}
	case string(errs.InvalidState):
		if noun := nounOf(cmd); noun == "vm" && cmd.Flags().NArg() > 0 {
			return "novacron vm show " + cmd.Flags().Arg(0)
		}
	}
	return ""
}

// nounOf is the noun a command belongs to, if it has a list.
func nounOf(cmd *cobra.Command) string {
	if cmd == nil || cmd.Parent() == nil {
		return ""
	}
	for _, sibling := range cmd.Parent().Commands() {
		if sibling.Name() == "list" {
			return cmd.Parent().Name()
		}
	}
	return ""
}

// reportJob says why a job did not succeed and what can be done.
func (a *app) reportJob(p output.Printer, j api.Job) {
	fmt.Fprintf(a.err, "%s %s\n", p.Bold("error:"), output.Clean((&client.JobError{Job: j}).Error()))
	if j.Error != nil {
		fmt.Fprintf(a.err, "  code: %s\n", output.Clean(j.Error.Code))
	}
	for _, s := range j.Steps {
		if s.Error != "" {
			fmt.Fprintf(a.err, "  step %s: %s\n", output.Clean(s.Name), output.Clean(s.Error))
		}
	}
	writeNext(a.err, jobNext(j))
}

func jobNext(j api.Job) string {
	if j.State == "needs_attention" {
		return "novacron job retry " + j.ID + ", once what stood in the way is gone"
	}
	return "novacron job show " + j.ID
}

func writeNext(w io.Writer, next string) { fmt.Fprintf(w, "  next: %s\n", next) }

// errorDocument is an error for programs.
func errorDocument(err error) any {
	if j, ok := errors.AsType[*client.JobError](err); ok {
		return map[string]any{"code": "job_" + j.Job.State, "detail": j.Error(), "job": j.Job.ID, "error": j.Job.Error}
	}
	if u, ok := errors.AsType[*usageError](err); ok {
		return map[string]any{"code": "usage", "detail": u.msg}
	}
	return publicError(err)
}
