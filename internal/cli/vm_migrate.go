package cli

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// migrateFlags are what 'vm migrate' is asked for.
type migrateFlags struct {
	req                api.VMMigrate
	options            api.MigrationOptions
	bandwidth          string
	downtime, patience time.Duration
	maxDowntime        time.Duration
	giveUp             time.Duration
	cutover            string
	interval           time.Duration
	plan               bool
}

func newVMMigrate(a *app) *cobra.Command {
	var w *waitFlags
	m := &migrateFlags{}
	cmd := leaf("migrate NAME", "Move a virtual machine to another node", names("NAME"), func(cmd *cobra.Command, args []string) error {
		req, err := m.request(cmd)
		if err != nil {
			return err
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		if m.plan {
			p, err := c.VMs.PlanMigration(cmd.Context(), args[0], req)
			if err != nil {
				return err
			}
			return a.printer().Describe(p, planPairs(p))
		}
		ch, err := c.VMs.Migrate(cmd.Context(), args[0], req)
		if err != nil {
			return err
		}
		if ch.Job == nil || !a.waits(cmd, w) {
			return a.settle(cmd, c, "migrate "+args[0], ch, w)
		}
		return a.followMigration(cmd, c, ch.Job.ID, w.timeout)
	})
	cmd.Long = `Move a virtual machine to another node. One that runs, or is paused, goes on while its
disks and its memory are copied, and is halted for a moment at the end (live). One
that is stopped or suspended moves at rest: its disks, what cloud-init is told, what
its UEFI firmware keeps, and the memory of one that is suspended, which goes on there
where it was (cold).

Without --node it goes to the node that suits best. --plan changes nothing, and says
which nodes suit, why the others do not, how much would be copied, how long that takes
at which rate, and what is another afterwards. Until it runs there it runs where it
was: the job can be cancelled ('novacron migration cancel'), and whatever fails, the
machine goes on. A guest that changes its memory faster than it is sent does not come
to its end. Then, unless --on-stall says otherwise, its processors are slowed down
more and more, and after that it may be halted for longer at the end, up to
--max-downtime; 'migration show' tells what was done and why. --profile wan is
for a slow network between two nodes: compressed, slowed down where it must be, and up
to a second for the end.

--kind warm is for one that runs and is to stop once, when that suits: its disks are
copied ahead while it goes on, first all of them and then, round by round, what has
changed since; rounds go on where they were after the network was cut. At the cutover it
is halted for the last round and all of its memory, and goes on there where it was. That
is when --cutover says: auto, as soon as the last round is expected to be short; manual,
when 'novacron vm cutover' says so; or a time. --timeout is about waiting for the job, as everywhere;
--give-up-after is about the migration.`
	cmd.Example = `  novacron vm migrate web --plan
  novacron vm migrate web --node rack2-7 --reason "new memory" --wait
  novacron vm migrate web --bandwidth 200MiB --downtime 100ms --auto-converge
  novacron vm migrate db --max-downtime 5s --on-stall downtime,give-up
  novacron vm migrate db --node other-site-1 --profile wan --give-up-after 2h
  novacron vm migrate db --kind warm --cutover 2026-12-01T02:00:00Z`
	m.flags(cmd)
	mustComplete(cmd.RegisterFlagCompletionFunc("node", a.completeNodes))
	w = a.addWait(cmd)
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

func (m *migrateFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&m.req.Node, "node", "", "the `node` to move to; whichever suits best by default")
	f.StringVar(&m.req.Reason, "reason", "", "`why`, for the record")
	f.StringVar(&m.req.Kind, "kind", "", "`live, warm or cold`; live or cold, whichever suits, by default")
	f.StringVar(&m.cutover, "cutover", "", "halt a warm one at the end `when`: auto, manual, or a time such as 2026-12-01T02:00:00Z (default auto)")
	f.DurationVar(&m.interval, "interval", 0, "let a warm one rest for this `duration` between two rounds (default 30s)")
	f.StringVar(&m.req.Profile, "profile", "", "a named set of options: `wan`")
	f.IntVar(&m.req.Priority, "priority", 0, "of those that wait for their turn the higher `number` goes first, -100 to 100")
	f.StringVar(&m.bandwidth, "bandwidth", "", "copy no more than this `size` per second, such as 200MiB")
	f.DurationVar(&m.downtime, "downtime", 0, "halt it at the end for this `duration` at most, such as 100ms (default 300ms)")
	f.DurationVar(&m.maxDowntime, "max-downtime", 0, "where it does not come to its end otherwise, halt it for this `duration` at most (default 1s, or --downtime)")
	f.StringSliceVar(&m.options.OnStall, "on-stall", nil, "when its memory does not come nearer to its end, do these `steps` one after the other: throttle, downtime, give-up; or wait (default throttle,downtime)")
	f.StringVar(&m.options.Compression, "compress", "", "compress its memory: `zstd`")
	f.BoolVar(&m.options.AutoConverge, "auto-converge", false, "slow its processors down from the beginning while it changes memory faster than that is sent")
	f.IntVar(&m.options.Channels, "channels", 0, "so many `connections` at once for its memory (default 2)")
	f.DurationVar(&m.patience, "patience", 0, "let the end take this `duration` at most; then it goes on where it was (default 30s)")
	f.DurationVar(&m.giveUp, "give-up-after", 0, "give it up when the end has not begun after this `duration`")
	f.BoolVar(&m.plan, "plan", false, "change nothing, and say what would be done")
	mustComplete(cmd.RegisterFlagCompletionFunc("on-stall", cobra.FixedCompletions([]string{"throttle", "downtime", "give-up", "wait"}, cobra.ShellCompDirectiveNoFileComp)))
	mustComplete(cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"live", "warm", "cold"}, cobra.ShellCompDirectiveNoFileComp)))
	mustComplete(cmd.RegisterFlagCompletionFunc("cutover", cobra.FixedCompletions([]string{"auto", "manual"}, cobra.ShellCompDirectiveNoFileComp)))
	mustComplete(cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions([]string{"wan"}, cobra.ShellCompDirectiveNoFileComp)))
	mustComplete(cmd.RegisterFlagCompletionFunc("compress", cobra.FixedCompletions([]string{"zstd"}, cobra.ShellCompDirectiveNoFileComp)))
}

func (m *migrateFlags) request(cmd *cobra.Command) (api.VMMigrate, error) {
	o := m.options
	if m.bandwidth != "" {
		n, err := unit.ParseBytes(m.bandwidth)
		if err != nil {
			return m.req, usage(cmd, "--bandwidth: %v", err)
		}
		o.BytesPerSecond = api.Bytes(n)
	}
	for _, d := range []struct {
		flag string
		d    time.Duration
		unit time.Duration
		at   *int64
	}{{"downtime", m.downtime, time.Millisecond, &o.DowntimeMS}, {"max-downtime", m.maxDowntime, time.Millisecond, &o.MaxDowntimeMS}, {"patience", m.patience, time.Second, &o.PatienceSeconds}, {"give-up-after", m.giveUp, time.Second, &o.TimeoutSeconds}, {"interval", m.interval, time.Second, &o.IntervalSeconds}} {
		if cmd.Flags().Changed(d.flag) && d.d < d.unit {
			return m.req, usage(cmd, "--%s is to be %s or more", d.flag, d.unit)
		}
		*d.at = int64(d.d / d.unit)
	}
	if err := m.cutsOver(cmd, &o); err != nil {
		return m.req, err
	}
	o.OnStall = slices.Clone(o.OnStall)
	for i, s := range o.OnStall {
		o.OnStall[i] = strings.ReplaceAll(s, "-", "_")
	}
	if !reflect.DeepEqual(o, api.MigrationOptions{}) {
		m.req.Options = &o
	}
	return m.req, nil
}

// cutsOver reads when a warm migration is to come to its end.
func (m *migrateFlags) cutsOver(cmd *cobra.Command, o *api.MigrationOptions) error {
	if m.cutover == "" || m.cutover == "auto" || m.cutover == "manual" {
		o.Cutover = m.cutover
		return nil
	}
	at, err := time.Parse(time.RFC3339, m.cutover)
	if err != nil {
		return usage(cmd, "--cutover is auto, manual, or a time such as 2026-12-01T02:00:00Z, and not %q", m.cutover)
	}
	o.CutoverAt = &at
	return nil
}

// followMigration shows how far a migration is until its job has ended, and then what it
// came to.
func (a *app) followMigration(cmd *cobra.Command, c *client.Client, job string, timeout time.Duration) error {
	terminal := isTerminal(a.err)
	err := a.followAs(cmd.Context(), c, job, timeout, func(j api.Job) string {
		m, err := c.Migrations.Get(cmd.Context(), job)
		if err != nil || j.Ended() || j.WaitReason != "" {
			return jobLine(j)
		}
		return migrationLine(m, terminal)
	})
	if err != nil || a.printer().Format.ForPrograms() {
		return err
	}
	m, err := c.Migrations.Get(cmd.Context(), job)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "it is on %s now: %s copied%s\n", output.Clean(m.Target), unit.FormatBytes(int64(m.BytesMoved)), halted(m))
	return nil
}

func halted(m api.Migration) string {
	switch {
	case m.DowntimeMS > 0:
		return fmt.Sprintf(", halted for %d ms", m.DowntimeMS)
	case m.DowntimeSeenMS > 0:
		return fmt.Sprintf(", halted for at most %d ms", m.DowntimeSeenMS)
	}
	return ""
}

// migrationLine is what a migration does at the moment; without numbers where each line
// stays.
func migrationLine(m api.Migration, numbers bool) string {
	line := "migrate " + m.VM.Name + " to " + m.Target
	if n := len(m.Phases); n > 0 {
		line += ": " + m.Phases[n-1].Name
	}
	if m.Relayed {
		line += ", relayed by a server"
	}
	if !numbers {
		return output.Clean(line)
	}
	line += ", " + unit.FormatBytes(int64(m.BytesMoved)) + " of " + unit.FormatBytes(int64(m.PredictedBytes))
	if p := m.Progress; p != nil && p.BytesPerSecond > 0 {
		line += fmt.Sprintf(" at %s/s, memory changes at %s/s, %s left, would halt for %d ms", unit.FormatBytes(int64(p.BytesPerSecond)),
			unit.FormatBytes(int64(p.DirtyBytesPerSecond)), unit.FormatBytes(int64(p.MemoryRemaining+p.DisksRemaining)), p.ExpectedDowntimeMS)
	}
	line += warmWords(m)
	if n := len(m.Steps); n > 0 {
		line += ", " + stepWords(m.Steps[n-1])
	}
	return output.Clean(line)
}

// warmWords say how far the rounds of a warm migration are.
func warmWords(m api.Migration) string {
	if m.Progress == nil || m.Progress.Warm == nil {
		return ""
	}
	w := m.Progress.Warm
	words := fmt.Sprintf(", %d rounds, %s changed since", w.Rounds, unit.FormatBytes(int64(w.ChangedBytes)))
	if w.Cut {
		words += ", its target cannot be reached"
	}
	return words
}

// stepWords say what was done where a migration stalled.
func stepWords(s api.MigrationStep) string {
	switch s.Step {
	case "throttle":
		return fmt.Sprintf("processors slowed down by %d%%", s.ThrottlePercent)
	case "downtime":
		return fmt.Sprintf("may be halted for %d ms", s.DowntimeMS)
	case "give_up":
		return "given up"
	case "anew":
		return "copied anew"
	default:
		return "stalls"
	}
}

func planPairs(p api.MigrationPlan) []output.Pair {
	target := p.Target
	if target == "" {
		target = "none: no node suits"
	}
	pairs := []output.Pair{
		{Key: "type", Value: p.Type},
		{Key: "from", Value: p.Source},
		{Key: "to", Value: target},
		{Key: "copies", Value: "up to " + size(p.Bytes)},
	}
	if p.Reach != "" {
		pairs = append(pairs, output.Pair{Key: "nodes reach each other", Value: reachWords(p.Reach)})
	}
	for _, d := range p.Disks {
		value := d.Action + ", " + size(d.SizeBytes)
		if d.Pool != "" {
			value += " in pool " + d.Pool
		}
		pairs = append(pairs, output.Pair{Key: "disk " + strconv.Itoa(d.Slot), Value: value})
	}
	pairs = append(pairs, predictionPairs(p.Type, p.Predicted)...)
	for _, c := range p.Candidates {
		if c.Node != p.Target {
			pairs = append(pairs, output.Pair{Key: "suits too", Value: c.Node})
		}
	}
	for _, r := range p.Rejected {
		pairs = append(pairs, output.Pair{Key: "does not suit", Value: r.Node + " " + strings.Join(r.Reasons, " and ")})
	}
	for _, n := range p.Notes {
		pairs = append(pairs, output.Pair{Key: "note", Value: n})
	}
	return pairs
}

// reachWords say how two nodes speak with each other.
func reachWords(reach string) string {
	if reach == "relayed" {
		return "no: relayed by a server, which is slower"
	}
	return "yes"
}

// predictionPairs say what a migration is expected to take, and by what assumption.
func predictionPairs(kind string, p api.MigrationPrediction) (pairs []output.Pair) {
	if p.BytesPerSecond == 0 {
		return nil
	}
	takes := time.Duration(p.Seconds * float64(time.Second)).Round(time.Second).String()
	pairs = append(pairs, output.Pair{Key: "takes", Value: fmt.Sprintf("about %s at %s/s (%s)", takes, unit.FormatBytes(int64(p.BytesPerSecond)), p.Assumption)})
	if kind == "warm" {
		return append(pairs, output.Pair{Key: "halted for", Value: fmt.Sprintf("up to about %d ms", p.DowntimeMS)})
	}
	if kind != "live" {
		return pairs
	}
	pairs = append(pairs, output.Pair{Key: "halted for", Value: fmt.Sprintf("up to about %d ms", p.DowntimeMS)}, output.Pair{Key: "converges", Value: p.Converges})
	rate := unit.FormatBytes(int64(p.DirtyBytesPerSecond)) + "/s"
	switch {
	case p.DirtyFrom == "sampled" && p.SampledAt != nil:
		rate += ", sampled at " + p.SampledAt.UTC().Format(time.RFC3339)
	case p.DirtyBytesPerSecond > 0:
		rate += ", when it was moved last"
	default:
		rate = "nobody knows"
	}
	return append(pairs, output.Pair{Key: "memory changes at", Value: rate})
}
