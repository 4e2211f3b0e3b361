package cli

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
)

// sickCluster answers as a cluster with everything wrong with it.
func sickCluster(b *bench, now time.Time) {
	soon := now.Add(time.Hour)
	b.on("GET /system", http.StatusOK, api.System{Cluster: "c", Server: "s", Version: "other"})
	b.on("GET /ca", http.StatusOK, api.CA{ExpiresAt: soon})
	n := api.Node{Status: api.NodeStatus{State: "unknown", Reason: "it does not report", CertificateExpiresAt: &soon, Inventory: api.Inventory{Acceleration: "tcg"}}}
	n.Name = "n1"
	b.on("GET /nodes", http.StatusOK, api.List[api.Node]{Items: []api.Node{n}})
	told := someVM("web", "failed")
	told.Spec.CloudInit = &api.VMCloudInit{Hostname: "www", UserData: "#!/bin/sh\npassword-of-a-guest\n"}
	b.on("GET /vms", http.StatusOK, api.List[api.VM]{Items: []api.VM{told, someVM("db", "pending")}})
	b.on("GET /recovery", http.StatusOK, api.Recovery{Held: true, Cause: "restored", Reason: "the database was put back"})
	b.on("GET /jobs", http.StatusOK, api.List[api.Job]{Items: []api.Job{someJob("needs_attention")}})
	b.on("GET /debug/tasks", http.StatusOK, api.List[api.Task]{Items: []api.Task{{Name: "pending-vms", LastError: "it broke"}}})
	b.on("GET /audit/verify", http.StatusOK, api.AuditVerified{Records: 3, Problem: "record 2 was changed"})
}

// Each fault of a cluster is named with what to do about it.
func TestDoctorNamesFaultAndRemedy(t *testing.T) {
	b := newBench(t)
	sickCluster(b, b.app.clock.Now())
	out := b.do(t, "doctor", 8)
	for _, want := range []string{
		"version other", "no administrator", "root certificate ends", "it does not report", "node remove --force",
		"has not been renewed", "hardware virtualization", "no cgroup", "1 are failed: web", "1 are pending: db",
		"1 need attention", "job retry", "the cluster is in recovery hold: the database was put back", "recovery confirm", "pending-vms failed: it broke", "record 2 was changed",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	for line := range strings.Lines(out) {
		if (strings.HasPrefix(line, levelError) || strings.HasPrefix(line, levelWarning)) && strings.HasSuffix(strings.TrimSpace(line), " -") {
			t.Errorf("no remedy: %s", line)
		}
	}
}

// A reader is told what was not looked at, and that is no error.
func TestDoctorWithoutRights(t *testing.T) {
	b := newBench(t)
	b.on("GET /system", http.StatusOK, api.System{Cluster: "c", Server: "s", Version: b.app.version, SetupDone: true})
	for _, p := range []string{"ca", "recovery", "nodes", "vms", "jobs", "debug/tasks", "audit/verify"} {
		b.on("GET /"+p, http.StatusForbidden, api.Error{Code: "forbidden", Detail: "the role reader may not"})
	}
	cmd := newDoctor(b.app)
	cmd.SetContext(t.Context())
	found := b.app.examineCluster(cmd)
	for _, f := range found {
		if f.Level == levelError {
			t.Errorf("%+v", f)
		}
	}
	if len(found) < 6 {
		t.Errorf("%+v", found)
	}
}

// What a host lacks for the isolation of guests is named with the package that has it.
func TestDoctorLooksForWhatConfines(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	got := checkPasst(t.Context())
	if len(got) != 1 || got[0].Level != levelWarning || !strings.Contains(got[0].Remedy, "apt install passt") {
		t.Errorf("%+v", got)
	}
	if got := checkFirmware(t.Context()); len(got) != 1 || (got[0].Remedy == "") == (got[0].Level == levelWarning) {
		t.Errorf("%+v", got)
	}
	const head = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"
	for _, c := range []struct{ one, two, off string }{
		{"", "", "cpu memory pids"},
		{head + "cpu\t1\t2\t1\nmemory\t2\t2\t0\npids\t3\t2\t1\n", "", "memory"},
		{"", "cpuset cpu io memory pids\n", ""},
		{head + "cpu\t0\t2\t1\n", "pids\n", "memory"},
	} {
		if got := strings.Join(controllersOff(c.one, c.two), " "); got != c.off {
			t.Errorf("%q and %q: %q is off, want %q", c.one, c.two, got, c.off)
		}
	}
}
