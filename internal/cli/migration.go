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

func newMigration(a *app) *cobra.Command {
	cmd := group(a, "migration", "The record of virtual machines' ways from node to node", newMigrationList(a), newMigrationShow(a),
		newJobAction(a, "cancel", "Take a migration back, as long as its machine is not on the other node", client.Jobs.Cancel))
	cmd.Aliases = []string{"migrations"}
	return cmd
}

func (a *app) migrationColumns() []output.Column[api.Migration] {
	now := a.clock.Now()
	return []output.Column[api.Migration]{
		{Title: "id", Cell: func(m api.Migration) string { return m.ID }},
		{Title: "vm", Cell: func(m api.Migration) string { return m.VM.Name }},
		{Title: "type", Cell: func(m api.Migration) string { return m.Type }},
		{Title: "state", State: true, Cell: func(m api.Migration) string { return m.State }},
		{Title: "from", Cell: func(m api.Migration) string { return m.Source }},
		{Title: "to", Cell: func(m api.Migration) string { return m.Target }},
		{Title: "copied", Cell: func(m api.Migration) string { return size(m.BytesMoved) }},
		{Title: "waits for", Cell: func(m api.Migration) string { return m.WaitReason }},
		{Title: "age", Cell: func(m api.Migration) string { return output.Age(now, m.CreatedAt) }},
		{Title: "by", Wide: true, Cell: func(m api.Migration) string { return m.CreatedBy }},
		{Title: "took", Wide: true, Cell: func(m api.Migration) string { return lasted(&m.CreatedAt, m.FinishedAt) }},
		{Title: "reason", Wide: true, Cell: func(m api.Migration) string { return m.Reason }},
	}
}

func newMigrationList(a *app) *cobra.Command {
	var l listFlags
	cmd := leaf("list", "List migrations, newest first", names(), func(cmd *cobra.Command, _ []string) error {
		return showList(a, cmd, &l, func(c *client.Client, o client.ListOptions) iter.Seq2[api.Migration, error] {
			return c.Migrations.All(cmd.Context(), o)
		}, a.migrationColumns())
	})
	cmd.Aliases = []string{"ls"}
	cmd.Example = "  novacron migration list --target rack2-7 --state failed"
	l.add(cmd)
	l.filter(cmd, "vm", "of the virtual machine of this `name`, or of names beginning so with a '*' at its end", a.completeVMs)
	l.filter(cmd, "state", "in this `state`; repeat it for more", cobra.FixedCompletions([]string{"running", "succeeded", "failed", "cancelled"}, cobra.ShellCompDirectiveNoFileComp))
	l.filter(cmd, "source", "from this `node`; repeat it for more", a.completeNodes)
	l.filter(cmd, "target", "to this `node`; repeat it for more", a.completeNodes)
	l.bound(cmd, 50, false)
	return cmd
}

func newMigrationShow(a *app) *cobra.Command {
	return leaf("show ID", "Show the record of one migration", names("ID"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		m, err := c.Migrations.Get(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.printer().Describe(m, a.migrationPairs(m))
	})
}

func (a *app) migrationPairs(m api.Migration) []output.Pair {
	pairs := []output.Pair{
		{Key: "id", Value: m.ID},
		{Key: "vm", Value: m.VM.Name},
		{Key: "type", Value: m.Type},
		{Key: "state", Value: m.State},
		{Key: "from", Value: m.Source},
		{Key: "to", Value: m.Target},
		{Key: "reason", Value: m.Reason},
		{Key: "by", Value: m.CreatedBy},
		{Key: "copied", Value: size(m.BytesMoved)},
		{Key: "predicted", Value: "up to " + size(m.PredictedBytes)},
	}
	pairs = append(pairs, predictionPairs(m.Type, m.Predicted)...)
	pairs = append(pairs, livePairs(m)...)
	for _, s := range m.Steps {
		pairs = append(pairs, output.Pair{Key: "step " + s.Step, Value: fmt.Sprintf("%s: %s (%s)", ago(a.clock.Now(), s.At), stepWords(s), s.Reason)})
	}
	pairs = append(pairs, output.Pair{Key: "created", Value: ago(a.clock.Now(), m.CreatedAt)})
	if m.BegunAt != nil {
		pairs = append(pairs, output.Pair{Key: "waited for its turn", Value: lasted(&m.CreatedAt, m.BegunAt)})
	}
	pairs = append(pairs, output.Pair{Key: "took", Value: lasted(&m.CreatedAt, m.FinishedAt)})
	for i, p := range m.Phases {
		end := m.FinishedAt
		if i+1 < len(m.Phases) {
			end = &m.Phases[i+1].At
		}
		pairs = append(pairs, output.Pair{Key: "phase " + p.Name, Value: lasted(&p.At, end)})
	}
	if m.Error != nil {
		pairs = append(pairs, output.Pair{Key: "error", Value: m.Error.Detail + " (" + m.Error.Code + ")"})
	}
	return pairs
}

// livePairs say how far a live migration is, how it was asked for, and what it came to.
func livePairs(m api.Migration) (pairs []output.Pair) {
	add := func(key, value string) { pairs = append(pairs, output.Pair{Key: key, Value: value}) }
	if o := m.Options; o != nil {
		add("options", optionsLine(*o))
	}
	pairs = append(pairs, warmPairs(m)...)
	if p := m.Progress; p != nil {
		add("memory", fmt.Sprintf("%s copied, %s left", unit.FormatBytes(int64(p.MemoryMoved)), unit.FormatBytes(int64(p.MemoryRemaining))))
		add("disks", fmt.Sprintf("%s copied, %s left", unit.FormatBytes(int64(p.DisksMoved)), unit.FormatBytes(int64(p.DisksRemaining))))
		add("rate", fmt.Sprintf("%s/s, memory changes at %s/s", unit.FormatBytes(int64(p.BytesPerSecond)), unit.FormatBytes(int64(p.DirtyBytesPerSecond))))
	}
	if m.WaitReason != "" {
		add("waits", m.WaitReason)
	}
	if m.ShareBytesPerSecond > 0 {
		add("share", fmt.Sprintf("%s/s of what its nodes give to all migrations", unit.FormatBytes(int64(m.ShareBytesPerSecond))))
	}
	if m.Relayed {
		add("relayed", "by a server: its nodes do not reach each other")
	}
	if m.DowntimeMS > 0 {
		add("was halted", fmt.Sprintf("%d ms, as its hypervisor tells", m.DowntimeMS))
	}
	if m.DowntimeSeenMS > 0 {
		add("was seen halted", fmt.Sprintf("%d ms, as the control plane saw it", m.DowntimeSeenMS))
	}
	return pairs
}

// warmPairs say when a warm migration comes to its end, and how far its rounds are.
func warmPairs(m api.Migration) (pairs []output.Pair) {
	add := func(key, value string) { pairs = append(pairs, output.Pair{Key: key, Value: value}) }
	if m.CutoverAt != nil {
		add("cutover", m.CutoverAt.UTC().Format(time.RFC3339))
	}
	if p := m.Progress; p != nil && p.Warm != nil {
		w := p.Warm
		add("rounds", fmt.Sprintf("%d; the last copied %s in %.1f s, %s have changed since", w.Rounds, unit.FormatBytes(int64(w.LastBytes)), w.LastSeconds, unit.FormatBytes(int64(w.ChangedBytes))))
		if w.Cuts > 0 {
			add("cut off", fmt.Sprintf("%d times", w.Cuts))
		}
	}
	return pairs
}

func optionsLine(o api.MigrationOptions) string {
	words := []string{fmt.Sprintf("halted for up to %d ms, %d channels", o.DowntimeMS, o.Channels)}
	if o.Cutover != "" {
		words = []string{fmt.Sprintf("cutover %s, a round every %d s, %d channels", o.Cutover, o.IntervalSeconds, o.Channels)}
	}
	if o.BytesPerSecond > 0 {
		words = append(words, "at most "+unit.FormatBytes(int64(o.BytesPerSecond))+"/s")
	}
	if o.Compression != "" {
		words = append(words, o.Compression)
	}
	if o.MaxDowntimeMS > o.DowntimeMS {
		words = append(words, fmt.Sprintf("up to %d ms where it must be", o.MaxDowntimeMS))
	}
	if len(o.OnStall) > 0 {
		words = append(words, "when it stalls "+strings.ReplaceAll(strings.Join(o.OnStall, ", "), "_", " "))
	}
	if o.AutoConverge {
		words = append(words, "slowed down where it must be")
	}
	return strings.Join(words, ", ")
}
