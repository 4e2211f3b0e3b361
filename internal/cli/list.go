package cli

import (
	"fmt"
	"iter"
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
	// by are filters with a flag of their own
	by map[string]*[]string
	// limit bounds what is shown; people at a terminal alone if forPeople
	limit     int
	all       bool
	forPeople bool
}

func (l *listFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.sort, "sort", "", "order by this `field`, -field for the reverse")
	cmd.Flags().StringArrayVar(&l.filters, "filter", nil, "keep what matches `name=value`, such as node=node-1")
}

// filter gives a filter of the list a flag of its own, which may be repeated.
func (l *listFlags) filter(cmd *cobra.Command, name, doc string, complete cobra.CompletionFunc) {
	if l.by == nil {
		l.by = map[string]*[]string{}
	}
	var words []string
	l.by[name] = &words
	cmd.Flags().StringSliceVar(&words, name, nil, doc)
	if complete != nil {
		mustComplete(cmd.RegisterFlagCompletionFunc(name, complete))
	}
}

// bound adds flags for how much is shown.
func (l *listFlags) bound(cmd *cobra.Command, limit int, forPeople bool) {
	doc := "at most this many; 0 for all"
	if forPeople {
		doc += "; a script gets all by default"
	}
	cmd.Flags().IntVar(&l.limit, "limit", limit, doc)
	cmd.Flags().BoolVar(&l.all, "all", false, "show every one, however many")
	l.forPeople = forPeople
}

func (l *listFlags) options(cmd *cobra.Command) (client.ListOptions, error) {
	o := client.ListOptions{Sort: l.sort, Filter: map[string]string{}}
	if l.all && cmd.Flags().Changed("limit") {
		return o, usage(cmd, "--all and --limit exclude each other")
	}
	for _, f := range l.filters {
		k, v, ok := strings.Cut(f, "=")
		if !ok || k == "" {
			return o, usage(cmd, "--filter takes name=value, not %q", f)
		}
		o.Filter[k] = v
	}
	for name, words := range l.by {
		if len(*words) == 0 {
			continue
		}
		if _, twice := o.Filter[name]; twice {
			return o, usage(cmd, "--filter %s=... and --%s say the same: give one", name, name)
		}
		o.Filter[name] = strings.Join(*words, ",")
	}
	return o, nil
}

// most is how many may be shown; 0 for all.
func (l *listFlags) most(a *app, cmd *cobra.Command) int {
	aside := l.forPeople && !cmd.Flags().Changed("limit") && (!isTerminal(a.out) || a.printer().Format.ForPrograms())
	if l.all || aside {
		return 0
	}
	return l.limit
}

// showList prints a list as its flags say; what is left out is said.
func showList[T any](
	a *app, cmd *cobra.Command, l *listFlags, walk func(*client.Client, client.ListOptions) iter.Seq2[T, error], columns []output.Column[T],
) error {
	o, err := l.options(cmd)
	if err != nil {
		return err
	}
	c, err := a.connect(cmd)
	if err != nil {
		return err
	}
	most := l.most(a, cmd)
	ask := most
	if most > 0 {
		ask++ // one more, to know whether there are more
	}
	items, err := atMost(walk(c, o), ask)
	if err != nil {
		return err
	}
	more := most > 0 && len(items) > most
	if more {
		items = items[:most]
	}
	if err := output.List(a.printer(), items, columns); err != nil {
		return err
	}
	if more {
		fmt.Fprintf(a.err, "These are the first %d; there are more. Show all with --all, or fewer with a filter.\n", most)
	}
	return nil
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
