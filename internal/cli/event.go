package cli

import (
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
)

func newEvent(a *app) *cobra.Command {
	cmd := group(a, "event", "What happens, in one order", newEventFollow(a))
	cmd.Aliases = []string{"events"}
	return cmd
}

func newEventFollow(a *app) *cobra.Command {
	after := client.FromNow
	var count int
	cmd := leaf("follow", "Print events as they happen", names(), func(cmd *cobra.Command, _ []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		seen := 0
		for ev, err := range c.Events(cmd.Context(), after) {
			if err != nil {
				return err
			}
			if err := a.printEvent(ev); err != nil {
				return err
			}
			if seen++; seen == count {
				return nil
			}
		}
		return nil
	})
	cmd.Flags().Int64Var(&after, "after", client.FromNow, "begin after the event of this `number`; 0 for all that are kept")
	cmd.Flags().IntVar(&count, "count", 0, "end after this many; 0 for never")
	return cmd
}

// printEvent prints one line, also as JSON; as YAML one document.
func (a *app) printEvent(ev api.Event) error {
	p := a.printer()
	switch p.Format {
	case output.YAML:
		fmt.Fprintln(a.out, "---")
		return p.Document(ev)
	case output.JSON:
		line, err := json.Marshal(ev)
		if err == nil {
			fmt.Fprintf(a.out, "%s\n", line)
		}
		return err
	default:
		line := fmt.Sprintf("%8d  %s  %-16s %s %s", ev.Seq, ev.At.UTC().Format(time.TimeOnly), ev.Kind, ev.Object.Kind, ev.Object.Name)
		if ev.Job != "" {
			line += "  job " + ev.Job
		}
		fmt.Fprintln(a.out, output.Clean(line))
		return nil
	}
}

// atMost takes the first n of a sequence, all if n is 0.
func atMost[T any](seq iter.Seq2[T, error], n int) ([]T, error) {
	items := []T{}
	for item, err := range seq {
		if err != nil {
			return items, err
		}
		items = append(items, item)
		if len(items) == n {
			break
		}
	}
	return items, nil
}
