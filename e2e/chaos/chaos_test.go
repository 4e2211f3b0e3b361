package chaos

import (
	"os"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// One case, or several parted by commas, that NOVACRON_CHAOS_CASE names.
func TestCase(t *testing.T) {
	names := os.Getenv("NOVACRON_CHAOS_CASE")
	if names == "" {
		t.Skip("NOVACRON_CHAOS_CASE names no case, such as sent/kill-agent-source")
	}
	b := openBench(t, mistake(os.Getenv("NOVACRON_CHAOS_MISTAKE")))
	for k, name := range strings.Split(names, ",") {
		at, what, _ := strings.Cut(name, "/")
		f, err := faultNamed(what)
		if err != nil {
			t.Fatal(err)
		}
		began := clock.System{}.Boot()
		if err := b.try(t.Context(), point(at), f, k); err != nil {
			t.Errorf("%s: %v", name, err)
			if !b.recovers() {
				break
			}
		}
		t.Logf("%s: %.1f s, silence %v", name, (clock.System{}.Boot() - began).Seconds(), b.witness.heard().longest)
	}
}
