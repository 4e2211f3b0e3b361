package cli

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/cli/output"
)

func newDebug(a *app) *cobra.Command {
	return group(a, "debug", "Look inside a server", newDebugTasks(a))
}

func (a *app) taskColumns() []output.Column[api.Task] {
	now := a.clock.Now()
	return []output.Column[api.Task]{
		{Title: "name", Cell: func(t api.Task) string { return t.Name }},
		{Title: "state", State: true, Cell: taskState},
		{Title: "period", Cell: func(t api.Task) string { return (time.Duration(t.PeriodMS) * time.Millisecond).String() }},
		{Title: "runs", Cell: func(t api.Task) string { return strconv.FormatInt(t.Activations, 10) }},
		{Title: "failures", Cell: func(t api.Task) string { return strconv.FormatInt(t.Failures, 10) }},
		{Title: "last", Cell: func(t api.Task) string { return agePtr(now, t.LastStart) }},
		{Title: "took", Cell: func(t api.Task) string { return strconv.FormatFloat(t.LastTookMS, 'f', 1, 64) + "ms" }},
		{Title: "status", Cell: func(t api.Task) string {
			if t.LastError != "" {
				return t.LastError
			}
			return string(t.LastStatus)
		}},
	}
}

func taskState(t api.Task) string {
	switch {
	case t.Running:
		return "running"
	case !t.Active:
		return "elsewhere" // another server leads
	case t.LastError != "":
		return "failed"
	default:
		return "ok"
	}
}

func newDebugTasks(a *app) *cobra.Command {
	return leaf("tasks", "Show what the server's reconcilers did last", names(), func(cmd *cobra.Command, _ []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		tasks, err := c.Tasks(cmd.Context())
		if err != nil {
			return err
		}
		return output.List(a.printer(), tasks, a.taskColumns())
	})
}
