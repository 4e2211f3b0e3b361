package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The disks of a real guest are copied ahead in rounds while it writes to them, and it is
// halted when a person says so, once: it goes on with all that it wrote, and with its memory.
// One that is cancelled meanwhile stays, and goes later all the same.
func TestRealGuestMovesWarm(t *testing.T) {
	i := up(t, "--accel", "tcg", "--nodes", "2")
	i.importTiny()
	i.must("vm", "create", "web", "--image", "tiny", "--memory", "128MiB", "--disk", "64MiB", "--hostname", "web", "--start", "--wait")
	i.logged("web", ready)
	i.console("web", "WROTE-42", "head -c 8M /dev/urandom > /dev/vda; sync; echo WROTE-$((6*7))")
	first := i.nodeOf("web")
	if plan := i.must("vm", "migrate", "web", "--plan", "--kind", "warm"); !strings.Contains(plan, "warm") || !strings.Contains(plan, first) {
		t.Errorf("the plan: %s", plan)
	}
	rounds := func(n int64) string {
		t.Helper()
		i.eventually(fmt.Sprint(n, " rounds"), func() (bool, string) {
			m := i.lastMigration("web")
			if m.State != "running" {
				t.Fatalf("it has ended: %+v", m)
			}
			return m.Progress != nil && m.Progress.Warm != nil && m.Progress.Warm.Rounds >= n, fmt.Sprintf("%+v %s", m.Progress, m.WaitReason)
		})
		return i.lastMigration("web").ID
	}
	i.must("vm", "migrate", "web", "--kind", "warm", "--cutover", "manual", "--interval", "1s")
	given := rounds(1)
	i.fails(4, "job", "vm", "stop", "web")
	i.must("migration", "cancel", given)
	i.eventually("it is cancelled", func() (bool, string) {
		m := i.lastMigration("web")
		return m.State == "cancelled", fmt.Sprintf("%+v", m)
	})
	if at := i.nodeOf("web"); at != first {
		t.Fatalf("what was cancelled is on %s", at)
	}
	i.must("vm", "migrate", "web", "--kind", "warm", "--cutover", "manual", "--interval", "1s", "--reason", "a quiet hour")
	rounds(1)
	i.console("web", "SINCE-42", "echo nova-data-9 > /dev/vda; sync; echo kept-in-memory > /remember; echo SINCE-$((6*7))")
	rounds(3)
	i.must("vm", "cutover", "web", "--wait")
	second := i.nodeOf("web")
	if second == first {
		t.Fatalf("it is on %s still", first)
	}
	i.console("web", "THERE-kept-in-memory-nova-data-9", "echo THERE-$(cat /remember)-$(head -c 11 /dev/vda)")
	m := i.lastMigration("web")
	var phases []string
	for _, p := range m.Phases {
		phases = append(phases, p.Name)
	}
	if m.State != "succeeded" || m.Type != "warm" || m.CutoverAt == nil || !slices.Contains(phases, "warm") || !slices.Contains(phases, "resumed") {
		t.Errorf("the record is %+v", m)
	}
	i.fails(4, "warm", "vm", "cutover", "web")
	i.must("vm", "stop", "web", "--force", "--wait")
	i.must("vm", "delete", "web", "--wait", "--yes")
	i.must("image", "delete", "tiny", "--wait")
	i.nothingLeft()
}
