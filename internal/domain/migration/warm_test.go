package migration

import (
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// The end of a warm migration comes when who asked wants, not before the disks have been copied
// once, and not while the target cannot be reached.
func TestCutsOver(t *testing.T) {
	now := time.Unix(1000, 0)
	later := now.Add(time.Minute)
	brief := Warmth{Rounds: 1, LastBytes: unit.GiB, LastTook: 10 * time.Second, Changed: 100 * unit.MiB}
	long := brief
	long.Changed = unit.GiB
	first, cut := brief, brief
	first.Rounds, cut.Cut = 0, true
	for name, c := range map[string]struct {
		o    Options
		w    Warmth
		told *time.Time
		want bool
		says string
	}{
		"Auto":            {o: Options{Cutover: Automatic}, w: brief, want: true},
		"AutoNothing":     {o: Options{Cutover: Automatic}, w: Warmth{Rounds: 1}, want: true},
		"AutoTooMuch":     {o: Options{Cutover: Automatic}, w: long, says: "1 GiB have changed"},
		"AutoTold":        {o: Options{Cutover: Automatic}, w: long, told: &now, want: true},
		"First":           {o: Options{Cutover: Automatic}, w: first, told: &now, says: "first time"},
		"Cut":             {o: Options{Cutover: Automatic}, w: cut, told: &now, says: "cannot be reached"},
		"Manual":          {o: Options{Cutover: Manual}, w: brief, says: "novacron vm cutover"},
		"ManualTold":      {o: Options{Cutover: Manual}, w: brief, told: &now, want: true},
		"AtATime":         {o: Options{Cutover: Manual}, w: brief, told: &later, says: "at 1970-01-01T00:17:40Z"},
		"AutoAtALaterOne": {o: Options{Cutover: Automatic}, w: brief, told: &later, says: "at 1970"},
	} {
		t.Run(name, func(t *testing.T) {
			got, says := c.o.CutsOver(c.w, c.told, now)
			if got != c.want || !strings.Contains(says, c.says) || got == (says != "") {
				t.Errorf("%v %q, want %v %q", got, says, c.want, c.says)
			}
		})
	}
}

// A warm move is never chosen by itself; its plan says what the first round copies, for how long
// the guest is halted, and when.
func TestPlanWarm(t *testing.T) {
	a, b, c := host("a", able), host("b", able), host("c", able)
	c.Inventory.WarmMigration = false
	v := running(a)
	p, err := PlanFor(v, []node.Node{a, b, c}, Request{Kind: Warm}, Changes{})
	if err != nil || p.Kind != Warm || len(p.Ranked) != 1 || p.Target().Name != "b" {
		t.Fatalf("%+v %v", p, err)
	}
	if o := p.Options; o.Cutover != Automatic || o.Interval != DefaultInterval || o.Channels != DefaultChannels || o.Patience < DefaultPatience || o.Timeout != MaxTimeout || o.Downtime != 0 {
		t.Errorf("%+v", o)
	}
	if p.Downtime <= ShortRound || p.Bytes != v.DiskBytes()+v.Intent.MemoryBytes || p.Rejected[len(p.Rejected)-1].Reasons[0] != "does not take disks in rounds" {
		t.Errorf("%+v", p)
	}
	for _, want := range []string{"the first round copies up to", "one every 30s", "as soon as the last round", "without a restart", "nothing else can be done"} {
		if !strings.Contains(strings.Join(p.Notes, " "), want) {
			t.Errorf("%q is not among %q", want, p.Notes)
		}
	}
	at := time.Unix(0, 0)
	p, err = PlanFor(v, []node.Node{a, b}, Request{Kind: Warm, Options: Options{CutoverAt: at}}, Changes{})
	if err != nil || p.Options.Cutover != Manual || !strings.Contains(strings.Join(p.Notes, " "), "at 1970-01-01T00:00:00Z") {
		t.Errorf("%+v %v", p, err)
	}
	if p, err = PlanFor(v, []node.Node{a, b}, Request{}, Changes{}); err != nil || p.Kind != Live {
		t.Errorf("chosen by itself: %+v %v", p.Kind, err)
	}
	if _, err = PlanFor(stopped(a), []node.Node{a, b}, Request{Kind: Warm}, Changes{}); !errs.Is(err, errs.InvalidState) {
		t.Errorf("of one at rest: %v", err)
	}
	if _, err = PlanFor(running(c), []node.Node{a, c}, Request{Kind: Warm}, Changes{}); !errs.Is(err, errs.InvalidState) {
		t.Errorf("from a node that cannot: %v", err)
	}
}
