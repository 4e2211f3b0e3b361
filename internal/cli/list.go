package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// listFlags choose what a list holds.
type listFlags struct {
	sort    string
	filters []string
}

func (l *listFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.sort, "sort", "", "order by this `field`, -field for the reverse")
	cmd.Flags().StringArrayVar(&l.filters, "filter", nil, "keep what matches `name=value`, such as node=node-1")
}

func (l *listFlags) options(cmd *cobra.Command) (client.ListOptions, error) {
	o := client.ListOptions{Sort: l.sort, Filter: map[string]string{}}
	for _, f := range l.filters {
		k, v, ok := strings.Cut(f, "=")
		if !ok || k == "" {
			return o, usage(cmd, "--filter takes name=value, not %q", f)
		}
		o.Filter[k] = v
	}
	return o, nil
}

// size prints bytes for people.
func size(b api.Bytes) string {
	if b == 0 {
		return ""
	}
	return unit.FormatBytes(int64(b))
}

// ago prints a moment for people and for comparing with logs.
func ago(now, then time.Time) string {
	if then.IsZero() {
		return ""
	}
	return output.Age(now, then) + " ago (" + then.UTC().Format(time.RFC3339) + ")"
}

// until prints a moment to come.
func until(now time.Time, then *time.Time) string {
	switch {
	case then == nil:
		return "never"
	case then.Before(now):
		return "expired"
	default:
		return "in " + output.Duration(then.Sub(now))
	}
}

func agePtr(now time.Time, then *time.Time) string {
	if then == nil {
		return ""
	}
	return output.Age(now, *then)
}
