package server

import (
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/vocab/id"
)

// A predecessor counts as dead only when its very process is gone from this
// machine, this boot and this namespace.
func TestProvenDead(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone, err := process.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	me, err := process.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	recycled, elsewhere := me, gone
	recycled.Start--
	elsewhere.Boot = "another machine"
	for name, c := range map[string]struct {
		p    predecessor
		dead bool
	}{
		"Gone":           {predecessor{id.New(), gone, namespace()}, true},
		"RecycledPID":    {predecessor{id.New(), recycled, namespace()}, true},
		"Alive":          {predecessor{id.New(), me, namespace()}, false},
		"OtherMachine":   {predecessor{id.New(), elsewhere, namespace()}, false},
		"OtherNamespace": {predecessor{id.New(), gone, "pid:[1]"}, false},
		"NoNamespace":    {predecessor{id.New(), gone, ""}, false},
		"Nobody":         {predecessor{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b, err := json.Marshal(c.p)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, predecessorFile), b, 0o600); err != nil {
				t.Fatal(err)
			}
			got := provenDead(dir, slog.New(slog.DiscardHandler))
			if (len(got) == 1 && got[0] == c.p.Server) != c.dead {
				t.Errorf("proven dead: %v", got)
			}
		})
	}
	if got := provenDead(t.TempDir(), slog.New(slog.DiscardHandler)); got != nil {
		t.Errorf("without a file: %v", got)
	}
}
