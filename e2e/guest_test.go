package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
)

// importTiny imports the test image.
func (i *instance) importTiny() {
	i.t.Helper()
	kernel, initrd := hypertest.GuestImage(i.t)
	i.must("image", "import", "tiny", "--kernel", kernel, "--initrd", initrd, "--cmdline", "console=ttyS0 panic=-1")
}

// ready is what the test guest prints once its shell waits.
const ready = "NovaCron test guest ready"

// A real guest, through every floor of the house: made on one of two nodes over
// the command line, it writes to its disk over the serial console, is paused,
// resumed and restarted, and finds its data again; agent and server are killed
// in the middle of jobs; and at the end nothing is left.
func TestRealGuest(t *testing.T) {
	i := up(t, "--nodes", "2", "--accel", "tcg")
	i.importTiny()
	i.must("vm", "create", "web-1", "--image", "tiny", "--cpus", "1", "--memory", "128MiB", "--disk", "64MiB", "--node", "node-2", "--start", "--wait")
	v := i.appears("web-1", "running")
	if v.Status.Node != "node-2" {
		t.Errorf("it runs on %s", v.Status.Node)
	}
	i.logged("web-1", ready)
	i.console("web-1", "WROTE-42", "echo nova-data-7 > /dev/vda; sync; echo WROTE-$((6*7))")

	i.must("vm", "pause", "web-1", "--wait")
	i.appears("web-1", "paused")
	i.fails(4, "invalid_state", "vm", "start", "web-1")
	i.must("vm", "resume", "web-1", "--wait")
	i.appears("web-1", "running")

	before := guestPID(t, v)
	i.killDuring("node-2", "vm", "restart", "web-1")
	i.appears("web-1", "running")
	i.logged("web-1", ready)
	if after := guestPID(t, get[api.VM](i, "vm", "show", "web-1")); after == before {
		t.Errorf("the restart left process %s in place", before)
	}
	i.console("web-1", "READ-nova-data-7", "echo READ-$(head -c 11 /dev/vda)")

	// the guest does not notice that its agent dies, nor that the server does
	same := guestPID(t, v)
	i.kill("node-2")
	i.eventually("a new agent adopts", func() (bool, string) {
		out, err := i.run("vm", "logs", "web-1")
		return err == nil && strings.Contains(out, ready), out
	})
	i.kill("server")
	i.eventually("a new server", func() (bool, string) {
		out, err := i.run("vm", "show", "web-1")
		return err == nil, out
	})
	if now := guestPID(t, v); now != same {
		t.Errorf("the guest's process was %s and is %s", same, now)
	}

	i.killDuring("server", "vm", "stop", "web-1")
	i.appears("web-1", "stopped")
	i.killDuring("server", "vm", "start", "web-1")
	i.appears("web-1", "running")
	i.fails(4, "in_use", "image", "delete", "tiny", "--wait")
	i.must("vm", "delete", "web-1", "--wait", "--yes")
	i.must("image", "delete", "tiny", "--wait")
	i.nothingLeft()
	if out := i.must("audit", "verify"); !strings.Contains(out, "intact") {
		t.Errorf("audit: %s", out)
	}
}

// killDuring asks for a change and kills a process as soon as it is accepted;
// the job must end well all the same.
func (i *instance) killDuring(process string, args ...string) {
	i.t.Helper()
	a := get[api.Job](i, args...)
	i.kill(process)
	var j api.Job
	i.eventually("end of job "+strings.Join(args, " "), func() (bool, string) {
		out, err := i.run("job", "show", a.ID)
		if err != nil {
			return false, out
		}
		j = get[api.Job](i, "job", "show", a.ID)
		return j.Ended(), out
	})
	if j.State != "succeeded" {
		i.t.Fatalf("%s, with %s killed: %+v %+v", strings.Join(args, " "), process, j, j.Error)
	}
}

// guestPID finds the one QEMU of a VM on this machine: more than one breaks the
// first rule of the house.
func guestPID(t testing.TB, v api.VM) string {
	t.Helper()
	found := guestPIDs(v)
	if len(found) != 1 {
		t.Fatalf("VM %s has the processes %v", v.Name, found)
	}
	return found[0]
}

func guestPIDs(v api.VM) (found []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range all {
		b, err := os.ReadFile(f)
		if err == nil && strings.HasPrefix(filepath.Base(strings.SplitN(string(b), "\x00", 2)[0]), "qemu-system") && strings.Contains(string(b), v.ID) {
			found = append(found, filepath.Base(filepath.Dir(f)))
		}
	}
	return found
}

// nothingLeft looks at the host after the last VM is gone.
func (i *instance) nothingLeft() {
	i.t.Helper()
	var left []string
	for _, p := range i.processes() {
		if strings.Contains(p, "qemu-system") || strings.Contains(p, "keeper") {
			left = append(left, "process "+p)
		}
	}
	nodes := get[api.List[api.Node]](i, "node", "list")
	for _, n := range nodes.Items {
		short := n.ID[len(n.ID)-8:]
		for _, pattern := range []string{
			"/dev/shm/novacron*/" + short + "/*", "/run/novacron*/guests/" + short + "/*-*",
			filepath.Join(i.data, "nodes", n.Name, "volumes", "*.qcow2"), filepath.Join(i.data, "nodes", n.Name, "volumes", "*.raw"), filepath.Join(i.data, "nodes", n.Name, "volumes", "*.json"),
			filepath.Join(i.data, "nodes", n.Name, "images", "[0-9a-f]*"), filepath.Join(i.data, "nodes", n.Name, "guests", "*-*"),
			filepath.Join(i.data, "server", "images", "*"),
		} {
			found, _ := filepath.Glob(pattern)
			left = append(left, found...)
		}
		left = append(left, hypertest.Groups(short)...)
		if u := n.Status.Used; u.CPUs != 0 || u.MemoryBytes != 0 || u.DiskBytes != 0 || n.Status.VMs != 0 {
			left = append(left, fmt.Sprintf("node %s counts %+v", n.Name, u))
		}
		claims, _ := filepath.Glob("/run/novacron/uids/*")
		for _, c := range claims {
			if b, err := os.ReadFile(c); err == nil && strings.Contains(string(b), short) {
				left = append(left, "uid claim "+c)
			}
		}
	}
	if vms := get[api.List[api.VM]](i, "vm", "list"); len(vms.Items) > 0 {
		left = append(left, fmt.Sprintf("%d VMs", len(vms.Items)))
	}
	if len(left) > 0 {
		i.t.Errorf("left over:\n%s", strings.Join(left, "\n"))
	}
}

// What changes a machine between two lives of its guest, and a disk that grows
// under it: renamed while it runs, resized at rest, with a disk more and one less,
// the guest finds its data, its new CPUs and its disks.
func TestRealGuestChanges(t *testing.T) {
	i := up(t, "--accel", "tcg")
	i.importTiny()
	i.must("vm", "create", "web-1", "--image", "tiny", "--cpus", "1", "--memory", "128MiB", "--disk", "64MiB", "--start", "--wait")
	i.logged("web-1", ready)
	i.console("web-1", "WROTE-42", "echo nova-data-7 > /dev/vda; sync; echo WROTE-$((6*7))")
	i.screen("web-1")
	i.must("vm", "disk", "grow", "web-1", "0", "--size", "5GiB", "--wait")
	i.console("web-1", "SEES-10485760", "while [ $(cat /sys/block/vda/size) = 131072 ]; do sleep 1; done; echo SEES-$(cat /sys/block/vda/size)")
	i.must("vm", "set", "web-1", "--name", "db-1", "--label", "tier=data")
	i.console("db-1", "STILL-42", "echo STILL-$((6*7))")
	i.fails(4, "invalid_state", "vm", "set", "db-1", "--cpus", "2")
	i.fails(4, "invalid_state", "vm", "disk", "add", "db-1", "--size", "32MiB")
	i.fails(4, "shrink_not_allowed", "vm", "disk", "grow", "db-1", "0", "--size", "1GiB")

	i.must("vm", "stop", "db-1", "--force", "--wait")
	if out := i.must("vm", "list", "--state", "stopped", "--label", "tier=data", "--name", "db-*"); !strings.Contains(out, "db-1") {
		t.Errorf("the list of what is stopped: %s", out)
	}
	i.must("vm", "set", "db-1", "--cpus", "2", "--memory", "160MiB")
	i.must("vm", "disk", "add", "db-1", "--size", "32MiB", "--wait")
	i.must("vm", "disk", "add", "db-1", "--size", "48MiB", "--wait")
	i.must("vm", "disk", "remove", "db-1", "1", "--wait", "--yes")
	i.must("vm", "start", "db-1", "--wait")
	i.logged("db-1", ready)
	i.console("db-1", "GOT-2-nova-data-7-10485760-98304", "echo GOT-$(nproc)-$(head -c 11 /dev/vda)-$(cat /sys/block/vda/size)-$(cat /sys/block/vdb/size)")
	i.must("vm", "stop", "db-1", "--force", "--wait")
	i.must("vm", "clone", "db-1", "db-2", "--wait")
	i.must("vm", "start", "db-1", "db-2", "--wait")
	i.logged("db-2", ready)
	i.console("db-2", "CLONE-2-nova-data-7-98304", "echo CLONE-$(nproc)-$(head -c 11 /dev/vda)-$(cat /sys/block/vdb/size); echo other > /dev/vda; sync")
	i.logged("db-1", ready)
	i.console("db-1", "OWN-nova-data-7", "echo OWN-$(head -c 11 /dev/vda)")
	i.must("vm", "delete", "db-1", "db-2", "--wait", "--yes")
	i.must("image", "delete", "tiny", "--wait")
	i.nothingLeft()
	if out := i.must("audit", "list", "--action", "vm.disk_add,vm.update", "--all"); strings.Count(out, "vm.disk_add") != 2 || strings.Count(out, "vm.update") != 2 {
		t.Errorf("audit: %s", out)
	}
}
