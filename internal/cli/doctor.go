package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// finding is one thing that doctor has to say.
type finding struct {
	// Level is ok, warning (it works, and could be better) or error (something does
	// not work, or soon will not).
	Level string `json:"level"`
	// Check is what was looked at.
	Check   string `json:"check"`
	Message string `json:"message"`
	// Remedy is what to do; empty when all is well.
	Remedy string `json:"remedy,omitempty"`
}

// The levels of findings.
const (
	levelOK      = "ok"
	levelWarning = "warning"
	levelError   = "error"
)

func fine(check, format string, args ...any) finding {
	return finding{Level: levelOK, Check: check, Message: fmt.Sprintf(format, args...)}
}

func warn(check, remedy, format string, args ...any) finding {
	return finding{Level: levelWarning, Check: check, Message: fmt.Sprintf(format, args...), Remedy: remedy}
}

func bad(check, remedy, format string, args ...any) finding {
	return finding{Level: levelError, Check: check, Message: fmt.Sprintf(format, args...), Remedy: remedy}
}

const doctorLong = `Look at this machine and at the cluster, and say what is wrong and what to do.

Nothing is changed. Findings are errors (something does not work, or soon will
not) and warnings (it works, and could be better); the exit code is 8 when there
is an error. Where no server can be reached, only this machine is looked at.`

func newDoctor(a *app) *cobra.Command {
	var host, all bool
	cmd := leaf("doctor", "Find what is wrong, with its remedy", names(), func(cmd *cobra.Command, _ []string) error {
		found := a.examineHost(cmd.Context())
		if !host {
			found = append(found, a.examineCluster(cmd)...)
		}
		return a.showFindings(found, all)
	})
	cmd.Long = doctorLong
	cmd.Flags().BoolVar(&host, "host", false, "look at this machine alone")
	cmd.Flags().BoolVar(&all, "all", false, "show also what is well")
	return cmd
}

func (a *app) showFindings(found []finding, all bool) error {
	errors := 0
	shown := slices.DeleteFunc(slices.Clone(found), func(f finding) bool {
		if f.Level == levelError {
			errors++
		}
		return f.Level == levelOK && !all
	})
	p := a.printer()
	switch {
	case len(shown) == 0 && !p.Format.ForPrograms():
		fmt.Fprintf(a.out, "%d checks, and nothing is wrong\n", len(found))
	default:
		err := output.List(p, shown, []output.Column[finding]{
			{Title: "level", State: true, Cell: func(f finding) string { return f.Level }},
			{Title: "check", Cell: func(f finding) string { return f.Check }},
			{Title: "finding", Cell: func(f finding) string { return f.Message }},
			{Title: "what to do", Cell: func(f finding) string { return f.Remedy }},
		})
		if err != nil {
			return err
		}
	}
	if errors > 0 {
		return errs.New(errs.HostFailure, "%d of %d checks found an error", errors, len(found))
	}
	return nil
}

// examine runs checks one after the other.
func examine(ctx context.Context, checks ...func(context.Context) []finding) (out []finding) {
	for _, check := range checks {
		out = append(out, check(ctx)...)
	}
	return out
}
