package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/novacron/novacron/api"
)

// killAll ends the instance as a power cut of all but the guests would.
func (i *instance) killAll() {
	i.t.Helper()
	s := i.state()
	if err := syscall.Kill(s.Up.PID, syscall.SIGKILL); err != nil {
		i.t.Fatalf("kill up: %v", err)
	}
	// a signal is not yet an end: what still runs would be taken for the instance
	i.eventually("the instance's processes end", func() (bool, string) {
		if syscall.Kill(s.Up.PID, 0) == nil {
			return false, "up lives"
		}
		for name, p := range s.Children {
			if syscall.Kill(p.PID, 0) == nil {
				return false, name + " lives"
			}
		}
		return true, ""
	})
}

// A database from before is put back, under real guests: A was stopped and started
// since, B deleted, C made. Nothing is done before an operator has confirmed the
// difference, no guest notices, and afterwards everything can be worked with.
func TestRestoreOlderDatabase(t *testing.T) {
	i := up(t, "--nodes", "1", "--accel", "tcg")
	i.importTiny()
	create := func(name string) {
		i.must("vm", "create", name, "--image", "tiny", "--cpus", "1", "--memory", "128MiB", "--disk", "16MiB", "--start", "--wait")
	}
	create("a")
	create("b")
	dump := filepath.Join(t.TempDir(), "novacron.dump")
	spare := get[api.Token](i, "token", "create", "spare")
	i.must("db", "backup", dump)
	i.must("token", "revoke", spare.ID)
	i.must("vm", "stop", "a", "--force", "--wait")
	i.must("vm", "start", "a", "--wait")
	i.must("vm", "delete", "b", "--wait", "--yes")
	create("c")
	a, c := i.appears("a", "running"), i.appears("c", "running")
	pids := map[string]string{"a": guestPID(t, a), "c": guestPID(t, c)}

	i.fails(4, "runs already", "db", "restore", dump, "--yes")
	i.killAll()
	i.fails(2, "--yes", "db", "restore", dump)
	nonsense := filepath.Join(t.TempDir(), "nonsense")
	if err := os.WriteFile(nonsense, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	i.fails(2, "is no backup", "db", "restore", nonsense, "--yes")
	if out := i.must("db", "restore", dump, "--yes"); !strings.Contains(out, "kept as database novacron_before_") {
		t.Errorf("%s", out)
	}
	i.start()

	// held, and shown as it is
	if out := i.must("status"); !strings.Contains(out, "recovery hold") {
		t.Errorf("%s", out)
	}
	i.fails(4, "recovery_hold", "vm", "stop", "a", "-o", "json")
	i.fails(4, "recovery_hold", "vm", "delete", "b", "--yes", "-o", "json")
	i.eventually("a is shown as it is", func() (bool, string) {
		v := get[api.VM](i, "vm", "show", "a")
		return v.Status.State == "running", v.Status.State
	})
	if v := get[api.VM](i, "vm", "show", "b"); v.Status.State != "unknown" {
		t.Errorf("b is %s", v.Status.State)
	}
	i.logged("a", ready)
	i.console("a", "HELD-42", "echo HELD-$((6*7))")
	r := get[api.Recovery](i, "recovery", "show")
	cases := map[string]string{}
	for _, v := range r.VMs {
		cases[v.Name] = v.Case + " " + v.Action
	}
	if len(cases) != 3 || cases["a"] != "changed adopt" || cases["b"] != "missing lose" || cases["c"] != "unknown adopt" {
		t.Fatalf("%v", cases)
	}
	if out := i.must("recovery", "show"); !strings.Contains(out, "recovery confirm --plan "+r.Plan) {
		t.Errorf("%s", out)
	}
	i.fails(4, "revision_mismatch", "recovery", "confirm", "--plan", "0123", "-o", "json")
	i.must("recovery", "confirm", "--plan", r.Plan)
	if out := i.must("recovery", "confirm", "--plan", r.Plan); !strings.Contains(out, "nothing is held") {
		t.Errorf("confirmed again: %s", out)
	}
	for _, v := range []api.VM{a, c} {
		if now := guestPID(t, v); now != pids[v.Name] {
			t.Errorf("the process of %s was %s and is %s", v.Name, pids[v.Name], now)
		}
	}

	// an epoch never falls, and everything can be worked with
	i.appears("c", "running")
	if now := get[api.VM](i, "vm", "show", "a"); now.Status.OwnerEpoch != a.Status.OwnerEpoch {
		t.Errorf("a's epoch was %d and is %d", a.Status.OwnerEpoch, now.Status.OwnerEpoch)
	}
	i.appears("b", "failed")
	i.must("vm", "stop", "a", "--force", "--wait")
	i.must("vm", "start", "a", "--wait")
	i.logged("a", ready)
	i.must("vm", "stop", "c", "--force", "--wait")
	i.must("vm", "start", "c", "--wait")
	i.appears("c", "running")
	// who follows events from before is told to read anew, not left waiting
	i.fails(2, "no longer kept", "event", "follow", "--after", "1", "--count", "1")
	for _, k := range get[api.List[api.Token]](i, "token", "list").Items {
		if k.ID == spare.ID && k.RevokedAt == nil {
			t.Error("a token that was revoked after the backup is good again")
		}
	}
	for _, vm := range []string{"a", "b", "c"} {
		i.must("vm", "delete", vm, "--wait", "--yes")
	}
	i.must("image", "delete", "tiny", "--wait")
	i.nothingLeft()
	if out := i.must("audit", "verify"); !strings.Contains(out, "intact") {
		t.Errorf("audit: %s", out)
	}
	if out := i.must("audit", "list"); !strings.Contains(out, "database.restore") || !strings.Contains(out, "recovery.confirm") {
		t.Errorf("audit: %s", out)
	}
}

// A database of the operator's own is restored where it is: never under a running
// server, by a role that may, and it belongs to whom it belonged.
func TestRestoreOwnDatabase(t *testing.T) {
	i := up(t, "--sim", "2")
	i.importTiny()
	i.must("vm", "create", "a", "--image", "tiny", "--start", "--wait")
	dump := filepath.Join(t.TempDir(), "novacron.dump")
	i.must("db", "backup", dump)
	i.must("vm", "stop", "a", "--wait")
	url := func(role string) string {
		return "postgres://" + role + "@/novacron?host=" + filepath.Join(i.runDirs()[0], "pg")
	}
	i.fails(4, "stop every server first", "db", "restore", dump, "--yes", "--database", url("postgres"))

	// the supervisor is held, so that it does not start the server again
	s := i.state()
	if err := syscall.Kill(s.Up.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	thaw := func() { _ = syscall.Kill(s.Up.PID, syscall.SIGCONT) }
	defer thaw()
	i.kill("server")
	i.eventually("it may not make databases", func() (bool, string) {
		out, err := i.run("db", "restore", dump, "--yes", "--database", url("novacron_owner"))
		return err != nil && strings.Contains(out, "CREATEDB"), out
	})
	wrong := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(wrong, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	i.fails(4, "not that of the backup", "db", "restore", dump, "--yes", "--database", url("postgres"), "--key", wrong)
	i.must("db", "restore", dump, "--yes", "--database", url("postgres"))

	// the database that is kept, as a newer NovaCron would have left it
	kept := strings.TrimSpace(i.must("db", "psql", "--", "-At", "-c", "SELECT datname FROM pg_database WHERE datname LIKE 'novacron_before_%'"))
	t.Setenv("NOVACRON_DATABASE_OWNER", strings.Replace(url("novacron_owner"), "/novacron?", "/"+kept+"?", 1))
	newer := filepath.Join(t.TempDir(), "newer")
	i.must("db", "psql", "--", "-c", "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)")
	i.must("db", "backup", newer)
	t.Setenv("NOVACRON_DATABASE_OWNER", "")
	i.fails(2, "a newer NovaCron has migrated it", "db", "restore", newer, "--yes", "--database", url("postgres"))
	thaw()

	i.confirmed()
	i.appears("a", "stopped")
	i.must("vm", "start", "a", "--wait")
	out := i.must("db", "psql", "--", "-At", "-c", "SELECT datname || ' ' || pg_get_userbyid(datdba) FROM pg_database WHERE datname LIKE 'novacron%' ORDER BY 1")
	if !strings.Contains(out, "novacron novacron_owner") || !strings.Contains(out, "novacron_before_") || strings.Contains(out, "restoring") {
		t.Errorf("databases: %s", out)
	}

	// nothing is left of the database but the file: nodes follow all the same,
	// although nobody knows the incarnation they are of
	i.killAll()
	if err := os.RemoveAll(filepath.Join(i.data, "postgres")); err != nil {
		t.Fatal(err)
	}
	i.must("db", "restore", dump, "--yes")
	i.start()
	i.confirmed()
	i.appears("a", "running")
	i.must("vm", "stop", "a", "--wait")
	i.must("vm", "delete", "a", "--wait", "--yes")
}

// confirmed waits until every node is compared, and confirms what differs.
func (i *instance) confirmed() {
	i.t.Helper()
	i.eventually("held", func() (bool, string) {
		out, err := i.run("status")
		return err == nil && strings.Contains(out, "recovery hold"), out
	})
	var r api.Recovery
	i.eventually("every node is compared", func() (bool, string) {
		r = get[api.Recovery](i, "recovery", "show")
		for _, n := range r.Nodes {
			if n.State != "compared" {
				return false, n.Name + " is " + n.State
			}
		}
		return true, ""
	})
	i.must("recovery", "confirm", "--plan", r.Plan)
}
