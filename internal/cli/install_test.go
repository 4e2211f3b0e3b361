package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What is installed below a folder is a program, its settings and units that
// systemd accepts; installing again keeps the settings; uninstalling takes the
// program with the last unit.
func TestInstallBelowAFolder(t *testing.T) {
	b, root := newBench(t), t.TempDir()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("nvj_x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.args(t, 0, "install", "--root", root)
	b.args(t, 0, "install", "agent", "--root", root, "--join-file", token)
	b.args(t, 0, "install", "server", "--root", root)
	for path, mode := range map[string]os.FileMode{binPath: 0o755, configFile: 0o640, joinPath: 0o600, unitDir + "/novacron.service": 0o644} {
		if info, err := os.Stat(filepath.Join(root, path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v, want mode %o", path, info, err, mode)
		}
	}
	if _, err := os.Stat(token); !os.IsNotExist(err) {
		t.Errorf("the token lies where it was: %v", err)
	}
	own := filepath.Join(root, configFile)
	if err := os.WriteFile(own, []byte("up: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.args(t, 0, "install", "--root", root)
	if raw, err := os.ReadFile(own); err != nil || string(raw) != "up: {}\n" {
		t.Errorf("the settings were replaced: %q %v", raw, err)
	}
	b.args(t, 0, "uninstall", "--root", root)
	b.args(t, 0, "uninstall", "agent", "--root", root)
	if _, err := os.Stat(filepath.Join(root, binPath)); err != nil {
		t.Errorf("the program went before the last unit: %v", err)
	}
	b.args(t, 0, "uninstall", "server", "--root", root)
	b.args(t, 3, "uninstall", "server", "--root", root)
	if _, err := os.Stat(filepath.Join(root, binPath)); !os.IsNotExist(err) {
		t.Errorf("the program is left: %v", err)
	}
	b.args(t, 2, "install", "everything", "--root", root)
	b.args(t, 2, "install", "--root", root, "--join-file", token)
}

func TestUnitsAreValid(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for _, s := range services {
		path := filepath.Join(dir, s.name)
		text := strings.ReplaceAll(s.text(), binPath, "/bin/true") // which is there
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
		if guests := s.face != "server"; strings.Contains(text, "KillMode=process") != guests {
			t.Errorf("%s: guests must outlive the service", s.name)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return // what else is here says what must stand in them
	}
	out, err := exec.CommandContext(t.Context(), analyze, append([]string{"verify", "--man=no"}, files...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "novacron") {
			t.Errorf("%s (%v)", strings.TrimSpace(line), err)
		}
	}
}

// Only a service's SIGTERM spares guests.
func TestSignalsAndGuests(t *testing.T) {
	b := newBench(t)
	if b.spares(syscall.SIGTERM) {
		t.Error("a person's SIGTERM leaves guests")
	}
	b.vars[serviceEnv] = "1"
	if b.spares(syscall.SIGINT) || b.spares(syscall.SIGHUP) {
		t.Error("another signal leaves a service's guests")
	}
	if !b.spares(syscall.SIGTERM) && !machineStops() {
		t.Error("a service's SIGTERM does not leave guests")
	}
}
