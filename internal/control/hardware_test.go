package control_test

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// upgrade gives a node other programs.
func upgrade(t *testing.T, n *controltest.Node, machines, cpus []string) {
	t.Helper()
	n.Kill()
	n.Machines, n.CPUs = machines, cpus
	if err := n.Return(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func boardOf(t *testing.T, c *controltest.Cluster, name, want string) {
	t.Helper()
	if got := view(t, c, name).Intent.Hardware.Type; got != want {
		t.Errorf("VM %s has the board %s, want %s", name, got, want)
	}
}

// A VM gets the newest board of its first node and keeps it, whatever becomes of the
// node's programs; so does its clone. One that is asked for is what it gets.
func TestBoardIsKept(t *testing.T) {
	c := controltest.New(t, 1)
	upgrade(t, c.Nodes[0], []string{"pc-q35-8.2", "pc-q35-7.2"}, []string{vm.CPUBaseline2, vm.CPUMax})
	make1(t, c, c.NewVM("a", false))
	boardOf(t, c, "a", "pc-q35-8.2")
	upgrade(t, c.Nodes[0], []string{"pc-q35-9.2", "pc-q35-8.2", "pc-q35-7.2"}, []string{vm.CPUBaseline2, vm.CPUMax})
	request(t, c, "a", vm.Start)
	request(t, c, "a", vm.Restart)
	request(t, c, "a", vm.Suspend)
	request(t, c, "a", vm.Resume)
	boardOf(t, c, "a", "pc-q35-8.2")
	request(t, c, "a", vm.Stop)
	_, err := clone(t, c, "a", "b")
	drive(t, c, err)
	boardOf(t, c, "b", "pc-q35-8.2")
	make1(t, c, c.NewVM("c", true))
	boardOf(t, c, "c", "pc-q35-9.2")
	d := c.NewVM("d", true)
	d.Hardware.Type = "pc-q35-7.2"
	make1(t, c, d)
	boardOf(t, c, "d", "pc-q35-7.2")
	// one that an earlier program made gets its board with the next start
	if _, err := c.DB.App.Exec(t.Context(), `UPDATE vms SET machine_type = 'q35' WHERE name = 'a'`); err != nil {
		t.Fatal(err)
	}
	request(t, c, "a", vm.Start)
	boardOf(t, c, "a", "pc-q35-9.2")
	for _, name := range []string{"a", "b", "c", "d"} {
		request(t, c, name, vm.Delete)
	}
	clean(t, c)
}

// What the VM's row says is what its node is asked for.
func TestBoardIsWhatIsLaunched(t *testing.T) {
	c := controltest.New(t, 1)
	upgrade(t, c.Nodes[0], []string{"pc-q35-6.66"}, []string{vm.CPUMax, vm.CPUBaseline2}) // which its hypervisor has not
	if _, err := c.Service.CreateVM(t.Context(), controltest.Admin(), c.NewVM("a", true)); err != nil {
		t.Fatal(err)
	}
	if err := c.Drive(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Service.VM(t.Context(), "a"); !errs.Is(err, errs.NotFound) {
		t.Errorf("it was made: %v", err)
	}
	var why string
	if err := c.DB.App.QueryRow(t.Context(), `SELECT error_message FROM jobs WHERE target_name = 'a'`).Scan(&why); err != nil || !strings.Contains(why, "no machine type pc-q35-6.66") {
		t.Errorf("%q %v", why, err)
	}
	clean(t, c)
}

// Hardware that no node has is waited for, and each node says what it has instead.
func TestHardwareThatNoNodeHas(t *testing.T) {
	c := controltest.New(t, 2)
	execute(t, c)
	for name, hw := range map[string]vm.Hardware{"board": {Type: "pc-q35-9.2"}, "host": {CPU: vm.CPUHost}, "level3": {CPU: vm.CPUBaseline3}, "secure": {Firmware: vm.FirmwareSecure}} {
		n := c.NewVM(name, true)
		n.Hardware = hw
		if _, err := c.Service.CreateVM(t.Context(), controltest.Admin(), n); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"board":  "n1 has no machine type pc-q35-9.2 (its newest is pc-q35-7.2); n2 has no",
		"host":   "n1 cannot give its own processor (CPU model host) to guests: they run under tcg; n2",
		"secure": "n1 has no firmware uefi-secure-boot (package ovmf); n2",
		"level3": "n1 does not offer CPU model x86-64-v3 under tcg; n2",
	} {
		until(t, name+" waits, since "+want, func() bool {
			a := vm.Appear(view(t, c, name))
			return a.State == vm.Pending && strings.Contains(a.Reason, want)
		})
	}
	upgrade(t, c.Nodes[1], []string{"pc-q35-9.2", "pc-q35-7.2"}, []string{vm.CPUBaseline2, vm.CPUBaseline3, vm.CPUMax})
	until(t, "two of the four run on the node that has got it", func() bool { return len(c.Running()) == 2 })
	boardOf(t, c, "board", "pc-q35-9.2")
	clean(t, c)
}

// Hardware changes at rest, to what the node has; a board of no version is any.
func TestHardwareChangesAtRest(t *testing.T) {
	c := controltest.New(t, 1)
	make1(t, c, c.NewVM("a", true))
	other := vm.Change{Hardware: vm.Hardware{CPU: vm.CPUMax}}
	if err := update(t, c, "a", other); !errs.Is(err, errs.InvalidState) || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("running: %v", err)
	}
	for what, same := range map[string]vm.Hardware{"any version": {Type: vm.MachineQ35}, "its own": {Type: "pc-q35-7.2", CPU: vm.CPUBaseline2}, "nothing": {}} {
		if err := update(t, c, "a", vm.Change{Hardware: same}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	request(t, c, "a", vm.Stop)
	if err := update(t, c, "a", vm.Change{Hardware: vm.Hardware{Type: "pc-q35-9.2"}}); !errs.Is(err, errs.NoNodeFits) || !strings.Contains(err.Error(), "its newest is pc-q35-7.2") {
		t.Errorf("a board that the node does not have: %v", err)
	}
	if err := update(t, c, "a", other); err != nil {
		t.Fatal(err)
	}
	if got := view(t, c, "a").Intent.Hardware; got != (vm.Hardware{Type: "pc-q35-7.2", CPU: vm.CPUMax, Firmware: vm.FirmwareBIOS}) {
		t.Errorf("%+v", got)
	}
	request(t, c, "a", vm.Start)
	request(t, c, "a", vm.Delete)
	clean(t, c)
}

// A microvm starts from a kernel: what is made of a disk is none, and becomes none. The
// field is named.
func TestMicrovmStartsFromAKernel(t *testing.T) {
	c := controltest.New(t, 1)
	upgrade(t, c.Nodes[0], []string{"pc-q35-7.2", vm.MachineMicro}, c.Nodes[0].CPUs)
	refused := func(what string, err error, at string) {
		t.Helper()
		if !errs.Is(err, errs.InvalidField) || errs.As(err).Fields[0].Pointer != at {
			t.Errorf("%s: %v", what, err)
		}
	}
	n := c.NewVM("a", false)
	n.Hardware.Type = vm.MachineMicro
	_, err := c.Service.CreateVM(t.Context(), controltest.Admin(), n)
	refused("made of a disk", err, "/machine/type")
	make1(t, c, c.NewVM("a", false))
	refused("changed", update(t, c, "a", vm.Change{Hardware: vm.Hardware{Type: vm.MachineMicro}}), "/machine/type")
	refused("with UEFI", update(t, c, "a", vm.Change{Hardware: vm.Hardware{Type: vm.MachineMicro, Firmware: vm.FirmwareUEFI}}), "/machine/firmware")
	boardOf(t, c, "a", "pc-q35-7.2")
	request(t, c, "a", vm.Delete)
	clean(t, c)
}

// What a VM's firmware keeps is made with its first start, stays as the guest leaves
// it, is copied with a clone, and goes with the VM.
func TestFirmwareVariablesAreTheVMs(t *testing.T) {
	c := controltest.New(t, 1)
	n := c.NewVM("a", true)
	n.Hardware.Firmware = vm.FirmwareUEFI
	make1(t, c, n)
	a := view(t, c, "a").Intent.ID
	if got := c.Nodes[0].Variables(a); got == "" {
		t.Fatal("none were made")
	}
	if err := c.Nodes[0].SetVariables(a, "boot from disk 2"); err != nil {
		t.Fatal(err)
	}
	request(t, c, "a", vm.Restart)
	request(t, c, "a", vm.Suspend)
	request(t, c, "a", vm.Resume)
	request(t, c, "a", vm.Stop)
	_, err := clone(t, c, "a", "b")
	drive(t, c, err)
	b := view(t, c, "b").Intent.ID
	for _, v := range []id.ID{a, b} {
		if got := c.Nodes[0].Variables(v); got != "boot from disk 2" {
			t.Errorf("the variables of %s are %q", v, got)
		}
	}
	// other firmware knows nothing of it, and the change back finds it again
	for _, kind := range []string{vm.FirmwareBIOS, vm.FirmwareUEFI} {
		if err := update(t, c, "a", vm.Change{Hardware: vm.Hardware{Firmware: kind}}); err != nil {
			t.Fatal(err)
		}
		request(t, c, "a", vm.Start)
		request(t, c, "a", vm.Stop)
	}
	if got := c.Nodes[0].Variables(a); got != "boot from disk 2" {
		t.Errorf("after a change and back: %q", got)
	}
	request(t, c, "a", vm.Delete)
	request(t, c, "b", vm.Delete)
	clean(t, c)
}

// Variables that were lost are made anew, and not in silence: the VM says so for as long
// as that incarnation runs, its event says so, and the next start has nothing to say.
func TestLostVariablesAreTold(t *testing.T) {
	c := controltest.New(t, 1)
	n := c.NewVM("a", true)
	n.Hardware.Firmware = vm.FirmwareUEFI
	make1(t, c, n)
	a := view(t, c, "a").Intent.ID
	says := func() string { return vm.Appear(view(t, c, "a")).Reason }
	if why := says(); why != "" {
		t.Errorf("of its first start: %q", why)
	}
	request(t, c, "a", vm.Stop)
	if err := c.Nodes[0].LoseVariables(a); err != nil {
		t.Fatal(err)
	}
	request(t, c, "a", vm.Start)
	if why := says(); !strings.Contains(why, "were made anew") || view(t, c, "a").Observed.Phase != vm.PhaseRunning {
		t.Errorf("after the loss: %q", why)
	}
	var events int
	err := c.DB.Owner.QueryRow(t.Context(), `SELECT count(*) FROM events WHERE object_id = $1 AND data->>'reason' LIKE '%made anew%'`, a).Scan(&events)
	if err != nil || events == 0 {
		t.Errorf("%d events, %v", events, err)
	}
	request(t, c, "a", vm.Pause)
	request(t, c, "a", vm.Resume)
	if why := says(); !strings.Contains(why, "were made anew") {
		t.Errorf("after a pause: %q", why)
	}
	request(t, c, "a", vm.Restart)
	if why := says(); why != "" {
		t.Errorf("of the start after: %q", why)
	}
	request(t, c, "a", vm.Delete)
	clean(t, c)
}

// A clone whose copies of variables are lost before its first start says so with that
// start; one of an original that had lost its own, too; and one that has them does not.
func TestClonesTellWhatTheyLost(t *testing.T) {
	c := controltest.New(t, 1)
	n := c.NewVM("a", true)
	n.Hardware.Firmware = vm.FirmwareUEFI
	make1(t, c, n)
	request(t, c, "a", vm.Stop)
	for _, name := range []string{"kept", "lost"} {
		_, err := clone(t, c, "a", name)
		drive(t, c, err)
	}
	for _, name := range []string{"lost", "a"} {
		if err := c.Nodes[0].LoseVariables(view(t, c, name).Intent.ID); err != nil {
			t.Fatal(err)
		}
	}
	_, err := clone(t, c, "a", "late")
	drive(t, c, err)
	for name, told := range map[string]bool{"kept": false, "lost": true, "late": true} {
		request(t, c, name, vm.Start)
		if why := vm.Appear(view(t, c, name)).Reason; strings.Contains(why, "were made anew") != told {
			t.Errorf("%s says %q", name, why)
		}
		request(t, c, name, vm.Restart)
		if why := vm.Appear(view(t, c, name)).Reason; why != "" {
			t.Errorf("%s says %q with its second start", name, why)
		}
		request(t, c, name, vm.Delete)
	}
	request(t, c, "a", vm.Delete)
	clean(t, c)
}
