package cli

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
)

func newJob(a *app) *cobra.Command {
	cmd := group(a, "job", "Changes under way, and their record",
		newJobList(a), newJobShow(a), newJobWait(a),
		newJobAction(a, "cancel", "Ask a job to undo what it did and end", client.Jobs.Cancel),
		newJobAction(a, "retry", "Let a job that needs attention try again", client.Jobs.Retry))
	cmd.Aliases = []string{"jobs"}
	return cmd
}

func (a *app) jobColumns() []output.Column[api.Job] {
	now := a.clock.Now()
	return []output.Column[api.Job]{
		{Title: "id", Cell: func(j api.Job) string { return j.ID }},
		{Title: "type", Cell: func(j api.Job) string { return j.Type }},
		{Title: "target", Cell: func(j api.Job) string { return j.Target.Kind + " " + j.Target.Name }},
		{Title: "state", State: true, Cell: func(j api.Job) string { return j.State }},
		{Title: "progress", Cell: func(j api.Job) string { return strconv.Itoa(j.Progress) + "%" }},
		{Title: "age", Cell: func(j api.Job) string { return output.Age(now, j.CreatedAt) }},
		{Title: "by", Wide: true, Cell: func(j api.Job) string { return j.CreatedBy }},
		{Title: "took", Wide: true, Cell: func(j api.Job) string { return lasted(j.StartedAt, j.FinishedAt) }},
		{Title: "why", Wide: true, Cell: jobWhy},
	}
}

// jobWhy says what a job waits for or failed of.
func jobWhy(j api.Job) string {
	if j.Error != nil {
		return j.Error.Detail
	}
	return j.WaitReason
}

func lasted(from, to *time.Time) string {
	if from == nil || to == nil {
		return ""
	}
	return fmt.Sprintf("%.1fs", to.Sub(*from).Seconds())
}

func newJobList(a *app) *cobra.Command {
	var l listFlags
	cmd := leaf("list", "List jobs, newest first", names(), func(cmd *cobra.Command, _ []string) error {
		return showList(a, cmd, &l, func(c *client.Client, o client.ListOptions) iter.Seq2[api.Job, error] {
			return c.Jobs.All(cmd.Context(), o)
		}, a.jobColumns())
	})
	cmd.Aliases = []string{"ls"}
	cmd.Example = "  novacron job list --state failed,needs_attention --kind vm.start"
	l.add(cmd)
	l.filter(cmd, "state", "in this `state`, such as waiting; repeat it for more", cobra.FixedCompletions([]string{
		"queued", "running", "waiting", "unwinding", "succeeded", "failed", "cancelled", "needs_attention",
	}, cobra.ShellCompDirectiveNoFileComp))
	l.filter(cmd, "kind", "of this `type`, such as vm.start; repeat it for more", nil)
	l.filter(cmd, "target", "about the object of this `name`, or of names beginning so with a '*' at its end", nil)
	l.bound(cmd, 50, false)
	return cmd
}

func newJobShow(a *app) *cobra.Command {
	return leaf("show ID", "Show one job and its steps", names("ID"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		j, err := c.Jobs.Get(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.printer().Describe(j, a.jobPairs(j))
	})
}

func (a *app) jobPairs(j api.Job) []output.Pair {
	pairs := []output.Pair{
		{Key: "id", Value: j.ID},
		{Key: "type", Value: j.Type},
		{Key: "target", Value: j.Target.Kind + " " + j.Target.Name},
		{Key: "state", Value: j.State},
		{Key: "progress", Value: output.Bar(j.Progress, barWidth)},
		{Key: "waits for", Value: j.WaitReason},
		{Key: "cancellable", Value: yes(j.Cancellable)},
		{Key: "cancel asked", Value: yes(j.CancelRequested)},
		{Key: "by", Value: j.CreatedBy},
		{Key: "created", Value: ago(a.clock.Now(), j.CreatedAt)},
		{Key: "took", Value: lasted(j.StartedAt, j.FinishedAt)},
	}
	if j.Error != nil {
		pairs = append(pairs, output.Pair{Key: "error", Value: j.Error.Detail + " (" + j.Error.Code + ")"})
	}
	for _, s := range j.Steps {
		value := s.State
		if t := lasted(&s.StartedAt, s.FinishedAt); t != "" {
			value += ", " + t
		}
		if s.Error != "" {
			value += ": " + s.Error
		}
		pairs = append(pairs, output.Pair{Key: "step " + s.Name, Value: value})
	}
	return pairs
}

func newJobWait(a *app) *cobra.Command {
	var timeout time.Duration
	cmd := leaf("wait ID", "Wait until a job has ended", names("ID"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		return a.follow(cmd.Context(), c, args[0], timeout)
	})
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after this `duration`; the job goes on")
	return cmd
}

func newJobAction(a *app, verb, short string, act func(client.Jobs, context.Context, string) (client.Change, error)) *cobra.Command {
	var w *waitFlags
	cmd := leaf(verb+" ID", short, names("ID"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		ch, err := act(c.Jobs, cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.settle(cmd, c, verb+" "+args[0], ch, w)
	})
	w = a.addWait(cmd)
	return cmd
}
