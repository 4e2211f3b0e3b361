package server

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/vocab/id"
)

// predecessorFile names the last server that ran on this data folder, and its
// process.
const predecessorFile = "server.json"

type predecessor struct {
	Server  id.ID            `json:"server"`
	Process process.Identity `json:"process"`
	// Namespace is the pid namespace in which the process has its pid.
	Namespace string `json:"namespace"`
}

// namespace names this process's pid namespace; empty when the kernel does not
// tell, which then proves nothing.
func namespace() string {
	ns, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return ns
}

// provenDead gives the server that ran here before, if its process is provably
// gone: it started under this boot of this machine, in this pid namespace, and the
// kernel has no such process any more. A folder shared with another machine or
// container proves nothing, since one of the two differs.
func provenDead(dataDir string, log *slog.Logger) []id.ID {
	b, err := os.ReadFile(filepath.Join(dataDir, predecessorFile))
	if err != nil {
		return nil
	}
	var p predecessor
	if err := json.Unmarshal(b, &p); err != nil || p.Server == id.Nil {
		return nil
	}
	me, err := process.Identify(os.Getpid())
	if err != nil || me.Boot != p.Process.Boot || p.Namespace == "" || p.Namespace != namespace() {
		return nil
	}
	h, err := process.Open(p.Process)
	if !errors.Is(err, process.ErrGone) {
		if err == nil {
			_ = h.Close()
		}
		return nil
	}
	log.Info("the server that ran here before is gone; its work is taken over at once", "server", p.Server)
	return []id.ID{p.Server}
}

// leaveName tells the next server here who this one was. Losing it costs the
// next one a few seconds.
func leaveName(dataDir string, server id.ID) error {
	me, err := process.Identify(os.Getpid())
	if err != nil {
		return err
	}
	b, err := json.Marshal(predecessor{server, me, namespace()})
	if err != nil {
		return err
	}
	tmp := filepath.Join(dataDir, "."+predecessorFile)
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dataDir, predecessorFile))
}
