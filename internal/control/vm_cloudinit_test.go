package control_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// seed gives what a VM's host has of its seed; empty when there is none.
func seed(t *testing.T, c *controltest.Cluster, name string) string {
	t.Helper()
	v, err := c.Nodes[0].Host.Volumes().Inspect(t.Context(), view(t, c, name).Intent.ID)
	if errs.Is(err, errs.NotFound) {
		return ""
	}
	if err != nil || !v.ReadOnly {
		t.Fatalf("%+v %v", v, err)
	}
	b, err := os.ReadFile(v.File.Path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What cloud-init is told is made with the disks, changes at rest, reaches the
// host with the next start, and goes when nothing is told any more.
func TestCloudInitChangesAtRest(t *testing.T) {
	c := controltest.New(t, 1)
	make1(t, c, c.NewVM("a", false))
	first := seed(t, c, "a")
	request(t, c, "a", vm.Start)
	if first == "" || seed(t, c, "a") != first {
		t.Errorf("the seed was %q and is %q", first, seed(t, c, "a"))
	}
	other := vm.Change{CloudInit: &vm.CloudInit{Hostname: "www", UserData: "#!/bin/sh\n"}}
	if err := update(t, c, "a", other); !errs.Is(err, errs.InvalidState) || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("while it runs: %v", err)
	}
	if err := update(t, c, "a", vm.Change{CloudInit: c.NewVM("a", false).CloudInit}); err != nil {
		t.Errorf("what is so already, while it runs: %v", err)
	}
	request(t, c, "a", vm.Stop)
	if err := update(t, c, "a", other); err != nil {
		t.Fatal(err)
	}
	if got := view(t, c, "a").Intent.CloudInit; !got.Equal(other.CloudInit) || seed(t, c, "a") != first {
		t.Errorf("before the next start: %+v, %q", got, seed(t, c, "a"))
	}
	request(t, c, "a", vm.Start)
	second := seed(t, c, "a")
	if second == "" || second == first {
		t.Errorf("after it: %q", second)
	}
	// the default host name is the VM's name, whatever that is now
	request(t, c, "a", vm.Stop)
	if err := update(t, c, "a", vm.Change{CloudInit: &vm.CloudInit{UserData: "#!/bin/sh\n"}}); err != nil {
		t.Fatal(err)
	}
	request(t, c, "a", vm.Start)
	named := seed(t, c, "a")
	if err := update(t, c, "a", vm.Change{Name: new("b")}); err != nil {
		t.Fatal(err)
	}
	request(t, c, "b", vm.Restart)
	if seed(t, c, "b") == named {
		t.Error("the new name did not arrive")
	}
	request(t, c, "b", vm.Stop)
	if err := update(t, c, "b", vm.Change{CloudInit: &vm.CloudInit{}}); err != nil {
		t.Fatal(err)
	}
	request(t, c, "b", vm.Start)
	if got := view(t, c, "b").Intent.CloudInit; got != nil || seed(t, c, "b") != "" {
		t.Errorf("without any: %+v, %q", got, seed(t, c, "b"))
	}
	var detail string
	err := c.DB.App.QueryRow(t.Context(), `SELECT string_agg(detail::text, ' ') FROM audit_log WHERE action = 'vm.update'`).Scan(&detail)
	if err != nil || !strings.Contains(detail, "user_data") || strings.Contains(detail, "bin/sh") {
		t.Errorf("audited: %s %v", detail, err)
	}
	request(t, c, "b", vm.Delete)
	clean(t, c)
}

// A clone is told the same under its own name, and has a seed of its own.
func TestCloneHasASeedOfItsOwn(t *testing.T) {
	c := controltest.New(t, 1)
	n := c.NewVM("a", false)
	n.CloudInit.Hostname = "www"
	make1(t, c, n)
	_, err := clone(t, c, "a", "b")
	drive(t, c, err)
	a, b := view(t, c, "a").Intent, view(t, c, "b").Intent
	if got := b.CloudInit.Changed(a.CloudInit); !slices.Equal(got, []string{"hostname"}) || b.CloudInit.Hostname != "" {
		t.Errorf("%+v", b.CloudInit)
	}
	if mine := seed(t, c, "b"); mine == "" || mine == seed(t, c, "a") {
		t.Errorf("the clone's seed is %q", mine)
	}
	request(t, c, "a", vm.Delete)
	request(t, c, "b", vm.Delete)
	clean(t, c)
}

// A host that cannot make the seed leaves nothing of the VM.
func TestSeedThatFailsUnwinds(t *testing.T) {
	c := controltest.New(t, 1)
	broken := errs.New(errs.HostFailure, "the disk is broken")
	disks := c.Nodes[0].Host.(*controltest.SimHost).Disks
	disks.Fail("write", broken)
	a, err := c.Service.CreateVM(t.Context(), controltest.Admin(), c.NewVM("a", true))
	drive(t, c, err)
	if j, err := c.Service.Job(t.Context(), *a.Job); err != nil || j.State != "failed" || j.ErrorCode != string(errs.HostFailure) {
		t.Errorf("%+v %v", j, err)
	}
	disks.Fail("write", nil)
	if _, err := c.Service.VM(t.Context(), "a"); !errs.Is(err, errs.NotFound) {
		t.Errorf("the VM: %v", err)
	}
	clean(t, c)
}
