package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// A real guest goes to another node suspended, and goes on there with its memory and its
// disk; and back, stopped, with its disk. What it left behind is gone.
func TestRealGuestMoves(t *testing.T) {
	i := up(t, "--accel", "tcg", "--nodes", "2")
	i.importTiny()
	i.must("vm", "create", "web", "--image", "tiny", "--memory", "128MiB", "--disk", "64MiB", "--hostname", "web", "--start", "--wait")
	i.logged("web", ready)
	i.console("web", "WROTE-42", "echo nova-data-7 > /dev/vda; sync; echo kept-in-memory > /remember; echo WROTE-$((6*7))")
	first := i.nodeOf("web")
	i.must("vm", "suspend", "web", "--wait")
	i.fails(4, "already", "vm", "migrate", "web", "--node", first)
	plan := i.must("vm", "migrate", "web", "--plan")
	if !strings.Contains(plan, "cold") || !strings.Contains(plan, first) || i.nodeOf("web") != first {
		t.Errorf("the plan: %s", plan)
	}
	i.must("vm", "migrate", "web", "--reason", "a new rack", "--wait")
	second := i.nodeOf("web")
	if second == first {
		t.Fatalf("it is on %s still", first)
	}
	i.must("vm", "resume", "web", "--wait")
	i.console("web", "THERE-kept-in-memory-nova-data-7", "was=$(head -c 11 /dev/vda); echo nova-data-8 > /dev/vda; sync; echo THERE-$(cat /remember)-$was")
	i.must("vm", "stop", "web", "--force", "--wait")
	i.must("vm", "migrate", "web", "--node", first, "--wait")
	i.must("vm", "start", "web", "--wait")
	i.logged("web", ready)
	i.console("web", "BACK-nova-data-8", "echo BACK-$(head -c 11 /dev/vda)")
	if i.nodeOf("web") != first {
		t.Errorf("it is on %s", i.nodeOf("web"))
	}
	for _, want := range []string{"succeeded", "a new rack", first, second} {
		if out := i.must("migration", "list", "--vm", "web", "-o", "wide"); !strings.Contains(out, want) {
			t.Errorf("the record lacks %q: %s", want, out)
		}
	}
	i.must("vm", "delete", "web", "--wait", "--yes")
	i.must("image", "delete", "tiny", "--wait")
	i.nothingLeft()
	if out := i.must("audit", "list", "--action", "vm.migrate", "--all"); strings.Count(out, "vm.migrate") != 2 {
		t.Errorf("audit: %s", out)
	}
}

// A real guest moves while it runs, and goes on with what it has in memory, on its disk and
// in its devices; so does one that is paused, which stays so.
func TestRealGuestMovesWhileItRuns(t *testing.T) {
	i := up(t, "--accel", "tcg", "--nodes", "2")
	i.importTiny()
	i.must("vm", "create", "web", "--image", "tiny", "--memory", "128MiB", "--disk", "64MiB", "--hostname", "web", "--start", "--wait")
	i.logged("web", ready)
	i.console("web", "WROTE-42", "echo nova-data-7 > /dev/vda; sync; echo kept-in-memory > /remember; echo WROTE-$((6*7))")
	first := i.nodeOf("web")
	if plan := i.must("vm", "migrate", "web", "--plan"); !strings.Contains(plan, "live") || !strings.Contains(plan, first) {
		t.Errorf("the plan: %s", plan)
	}
	i.must("vm", "migrate", "web", "--reason", "a new rack", "--wait")
	second := i.nodeOf("web")
	if second == first {
		t.Fatalf("it is on %s still", first)
	}
	i.recorded("web")
	i.console("web", "THERE-kept-in-memory-nova-data-7", "was=$(head -c 11 /dev/vda); echo nova-data-8 > /dev/vda; sync; echo THERE-$(cat /remember)-$was")
	i.must("vm", "pause", "web", "--wait")
	i.must("vm", "migrate", "web", "--node", first, "--wait")
	if v := i.must("vm", "show", "web"); !strings.Contains(v, "paused") || i.nodeOf("web") != first {
		t.Errorf("what was paused is on %s: %s", i.nodeOf("web"), v)
	}
	i.must("vm", "resume", "web", "--wait")
	i.console("web", "BACK-kept-in-memory-nova-data-8", "echo BACK-$(cat /remember)-$(head -c 11 /dev/vda)")
	if out := i.must("migration", "list", "--vm", "web", "-o", "wide"); strings.Count(out, "succeeded") != 2 || !strings.Contains(out, "live") {
		t.Errorf("the record: %s", out)
	}
	i.must("vm", "stop", "web", "--force", "--wait")
	i.must("vm", "delete", "web", "--wait", "--yes")
	i.must("image", "delete", "tiny", "--wait")
	i.nothingLeft()
}

// Real guests that leave a node at once share what the node gives to migrations, and what it
// gives may change meanwhile; together they do not take more.
func TestRealGuestsShareBandwidth(t *testing.T) {
	i := up(t, "--accel", "tcg", "--nodes", "2")
	i.importTiny()
	nodes, err := i.client().Nodes.List(t.Context(), client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	from, to := nodes.Items[0].Name, nodes.Items[1].Name
	for _, name := range []string{"a", "b"} {
		i.must("vm", "create", name, "--image", "tiny", "--memory", "128MiB", "--disk", "32MiB", "--node", from, "--start", "--wait")
		i.logged(name, ready)
		i.console(name, "WROTE-42", "head -c 24M /dev/urandom > /dev/vda; sync; echo WROTE-$((6*7))")
	}
	const first, then = 8 << 20, 32 << 20
	i.must("node", "set", from, "--migration-bandwidth", "8MiB")
	if p := i.must("vm", "migrate", "a", "--plan", "--node", to); !strings.Contains(p, "8 MiB/s (what node "+from+" gives to all of its migrations together)") {
		t.Errorf("the plan: %s", p)
	}
	for _, name := range []string{"a", "b"} {
		i.must("vm", "migrate", name, "--node", to)
	}
	shares := func(share int64) func() (bool, string) {
		return func() (bool, string) {
			a, b := i.lastMigration("a"), i.lastMigration("b")
			if a.State != "running" || b.State != "running" {
				t.Fatalf("one has ended: %+v %+v", a, b)
			}
			return int64(a.ShareBytesPerSecond) == share && int64(b.ShareBytesPerSecond) == share, fmt.Sprint(a.ShareBytesPerSecond, b.ShareBytesPerSecond, a.WaitReason, b.WaitReason)
		}
	}
	i.eventually("both have half", shares(first/2))
	i.must("node", "set", from, "--migration-bandwidth", "32MiB")
	changed := clock.System{}.Boot()
	i.eventually("both have half of more", shares(then/2))
	i.eventually("both have moved", func() (bool, string) {
		a, b := i.lastMigration("a"), i.lastMigration("b")
		return a.State == "succeeded" && b.State == "succeeded", fmt.Sprintf("%s %+v, %s %+v", a.State, a.Error, b.State, b.Error)
	})
	took := clock.System{}.Boot() - changed
	a, b := i.lastMigration("a"), i.lastMigration("b")
	began := min(a.BegunAt.UnixMilli(), b.BegunAt.UnixMilli())
	ended := max(a.FinishedAt.UnixMilli(), b.FinishedAt.UnixMilli())
	slow := float64(ended-began)/1000 - took.Seconds()
	// pages of zeros are counted by QEMU, and hardly sent: so disks alone, which are not
	sent, most := float64(a.Progress.DisksMoved+b.Progress.DisksMoved), (slow+2)*first+took.Seconds()*then
	if sent < 2*24<<20 || sent > most {
		t.Errorf("%.0f bytes of disks went over in %.1f s at %d and %.1f s at %d bytes per second", sent, slow, first, took.Seconds(), then)
	}
	for _, name := range []string{"a", "b"} {
		i.must("vm", "stop", name, "--force", "--wait")
		i.must("vm", "delete", name, "--wait", "--yes")
	}
	i.must("image", "delete", "tiny", "--wait")
	i.nothingLeft()
}

// recorded looks at the record of the one live migration of a VM: what was expected, and what
// came.
func (i *instance) recorded(name string) {
	i.t.Helper()
	for m, err := range i.client().Migrations.All(i.t.Context(), client.ListOptions{Filter: map[string]string{"vm": name}}) {
		switch {
		case err != nil:
			i.t.Fatal(err)
		case m.Type != "live" || m.Progress == nil || m.Options == nil:
			i.t.Errorf("it is no record of a live migration: %+v", m)
		case m.Progress.MemoryMoved == 0, m.Progress.DisksMoved == 0, m.DowntimeMS == 0, m.DowntimeSeenMS < m.DowntimeMS, m.Options.Channels != 2, m.Predicted.Converges == "":
			i.t.Errorf("%+v %+v, halted for %d ms, seen %d ms, predicted %+v", *m.Progress, *m.Options, m.DowntimeMS, m.DowntimeSeenMS, m.Predicted)
		}
	}
}

// nodeOf is the node that a VM is on.
func (i *instance) nodeOf(name string) string {
	i.t.Helper()
	v, err := i.client().VMs.Get(i.t.Context(), name)
	if err != nil {
		i.t.Fatal(err)
	}
	return v.Status.Node
}
