package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// waitFlags say whether and how long a command waits for its job.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

// addWait gives a command the flags. A person at a terminal wants to see what
// becomes of a command; a script says what it wants.
func (a *app) addWait(cmd *cobra.Command) *waitFlags {
	w := &waitFlags{}
	cmd.Flags().BoolVar(&w.wait, "wait", false, "wait until it is done (the default on a terminal; --wait=false does not)")
	cmd.Flags().DurationVar(&w.timeout, "timeout", 0, "give up waiting after this `duration`; the job goes on")
	return w
}

// waits decides for this run.
func (a *app) waits(cmd *cobra.Command, w *waitFlags) bool {
	if cmd.Flags().Changed("wait") {
		return w.wait
	}
	return cmd.Flags().Changed("timeout") || (isTerminal(a.out) && isTerminal(a.err))
}

// settle reports a change: at once, or once its job has ended.
func (a *app) settle(cmd *cobra.Command, c *client.Client, what string, ch client.Change, w *waitFlags) error {
	p := a.printer()
	switch {
	case ch.Job == nil && p.Format.ForPrograms():
		return p.Document(ch)
	case ch.Job == nil:
		fmt.Fprintf(a.out, "%s: nothing was left to do\n", what)
		return nil
	case a.waits(cmd, w):
		return a.follow(cmd.Context(), c, ch.Job.ID, w.timeout)
	case p.Format.ForPrograms():
		return p.Document(ch.Job)
	}
	fmt.Fprintf(a.out, "%s: accepted as job %s\n", what, ch.Job.ID)
	fmt.Fprintf(a.err, "follow it with: novacron job wait %s\n", ch.Job.ID)
	return nil
}

// follow shows a job's progress until it has ended, then its result.
func (a *app) follow(ctx context.Context, c *client.Client, id string, timeout time.Duration) error {
	return a.followAs(ctx, c, id, timeout, jobLine)
}

// followAs is follow in other words for how far it is.
func (a *app) followAs(ctx context.Context, c *client.Client, id string, timeout time.Duration, line func(api.Job) string) error {
	stop := func() {}
	wait := ctx
	if timeout > 0 {
		wait, stop = context.WithTimeout(ctx, timeout)
	}
	defer stop()
	show := newProgress(a.err, isTerminal(a.err))
	show.line = line
	job, err := c.WaitJob(wait, id, show.update)
	show.done()
	_, failed := errors.AsType[*client.JobError](err)
	switch {
	case failed:
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return errs.New(errs.Timeout, "it was not done within %s; the job goes on", timeout).HeldBy(id)
	case err != nil && ctx.Err() != nil:
		fmt.Fprintf(a.err, "the job goes on; follow it with: novacron job wait %s\n", id)
		return err
	case err != nil:
		return err
	}
	p := a.printer()
	if p.Format.ForPrograms() {
		return p.Document(job)
	}
	fmt.Fprintf(a.out, "%s %s: done%s\n", output.Clean(job.Type), output.Clean(job.Target.Name), took(job))
	return nil
}

func took(j api.Job) string {
	if j.FinishedAt == nil {
		return ""
	}
	return fmt.Sprintf(" in %.1fs", j.FinishedAt.Sub(j.CreatedAt).Seconds())
}

// progress draws a job on standard error: one line that changes on a terminal,
// one line per step elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	said     string
	drawn    bool
	// line says what a job does at the moment.
	line func(api.Job) string
}

func newProgress(w io.Writer, terminal bool) *progress {
	return &progress{w: w, terminal: terminal, line: jobLine}
}

const barWidth = 24

func (p *progress) update(j api.Job) {
	line := p.line(j)
	if p.terminal {
		// back to the first column, and away with what was longer (ECMA-48)
		fmt.Fprintf(p.w, "\r\x1b[K%s %s", output.Bar(j.Progress, barWidth), line)
		p.drawn = true
		return
	}
	if line != p.said && !j.Ended() {
		fmt.Fprintln(p.w, line)
	}
	p.said = line
}

// note draws progress in bytes, for uploads.
func (p *progress) note(percent int, line string) {
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s %s", output.Bar(percent, barWidth), line)
		p.drawn = true
	}
}

func (p *progress) done() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.drawn = false
}

// jobLine is what a job does at the moment.
func jobLine(j api.Job) string {
	line := j.Type + " " + j.Target.Name + ": " + j.State
	if n := len(j.Steps); n > 0 && !j.Ended() {
		line += ", " + j.Steps[n-1].Name
	}
	if j.WaitReason != "" {
		line += " (" + j.WaitReason + ")"
	}
	return output.Clean(line)
}
