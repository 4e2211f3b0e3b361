package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

// oldProgram names the program of an earlier release.
const oldProgram = "NOVACRON_E2E_OLD"

// with runs the command line of another release for a while.
func with(program string, fn func()) {
	now := binary
	binary = program
	defer func() { binary = now }()
	fn()
}

// An earlier release's data, agent and guest meet this program: the guest does not
// notice, its data is there, an agent of that release goes on with a server of this
// one, and that release's server refuses data that has moved on.
func TestUpgrade(t *testing.T) {
	old := os.Getenv(oldProgram)
	if old == "" {
		t.Skip("needs an earlier release: make upgrade-test")
	}
	var i *instance
	var pid string
	with(old, func() {
		i = up(t, "--accel", "tcg")
		i.importTiny()
		i.must("vm", "create", "web", "--image", "tiny", "--cpus", "1", "--memory", "128MiB", "--disk", "64MiB", "--start", "--wait")
		i.logged("web", ready)
		i.console("web", "SET-before", "echo on-disk-5 > /dev/vda; sync; MARK=before; echo SET-$MARK")
		i.must("vm", "create", "idle", "--image", "tiny", "--memory", "128MiB", "--wait")
		pid = guestPID(t, get[api.VM](i, "vm", "show", "web"))
	})
	i.bothReleases(old)
	// as a package's upgrade does that restarts the service: the guest is left alone
	i.killAll()
	i.start()
	v := i.appears("web", "running")
	if now := guestPID(t, v); now != pid {
		t.Errorf("the guest's process was %s and is %s", pid, now)
	}
	i.console("web", "MEM-before", "echo MEM-$MARK")
	if v := get[api.VM](i, "vm", "show", "idle"); v.Status.State != "stopped" {
		t.Errorf("a stopped VM is %s", v.Status.State)
	}
	i.must("vm", "restart", "web", "--wait")
	i.logged("web", ready)
	i.console("web", "READ-on-disk-5", "echo READ-$(head -c 9 /dev/vda)")
	i.must("vm", "start", "idle", "--wait")
	i.logged("idle", ready)
	if out := i.must("audit", "verify"); !strings.Contains(out, "intact") {
		t.Errorf("audit: %s", out)
	}

	i.oldAgent(old)

	i.must("vm", "delete", "idle", "--wait", "--yes")
	i.must("vm", "stop", "web", "--force", "--wait")
	i.must("down")
	with(old, func() {
		if out, err := i.run(i.args...); err == nil || !strings.Contains(out, "newer") {
			t.Errorf("the earlier release took data that has moved on: %v\n%s", err, out)
		}
	})
	i.start()
	if v := i.appears("web", "stopped"); v.Name != "web" {
		t.Errorf("%+v", v)
	}
	i.must("vm", "delete", "web", "--wait", "--yes")
	i.must("image", "delete", "tiny", "--wait")
}

// bothReleases has a server of this release work beside one of the earlier, on one
// database and with an agent of the earlier release: each goes on with what the other
// has made.
func (i *instance) bothReleases(old string) {
	i.t.Helper()
	s := i.furtherServer(freeAddress(i.t), "NOVACRON_DATABASE_OWNER="+i.database("novacron_owner"))
	c, err := client.New(client.Config{Socket: s.socket})
	if err != nil {
		i.t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(i.t.Context(), i.patience)
	defer cancel()
	i.eventually("the agent has a session with the newer server too", func() (bool, string) {
		n, err := client.Collect(c.Nodes.All(ctx, client.ListOptions{}))
		return err == nil && len(n) == 1 && n[0].Status.State == "ready", fmt.Sprintf("%+v %v", n, err)
	})
	with(old, func() {
		i.must("vm", "create", "between", "--image", "tiny", "--memory", "128MiB", "--start", "--wait")
		i.must("vm", "stop", "between", "--force", "--wait")
	})
	finish := func(change client.Change, err error) {
		i.t.Helper()
		if err == nil {
			_, err = c.WaitChange(ctx, change, nil)
		}
		if err != nil {
			i.t.Fatal("by the newer server: ", err)
		}
	}
	finish(c.VMs.Start(ctx, "between"))
	with(old, func() { i.must("vm", "pause", "between", "--wait") })
	finish(c.VMs.Resume(ctx, "between"))
	finish(c.VMs.Stop(ctx, "between", api.VMStop{Force: true}))
	with(old, func() { i.must("vm", "delete", "between", "--wait", "--yes") })
	if _, err := c.VMs.Get(ctx, "between"); client.CodeOf(err) != "not_found" {
		i.t.Errorf("deleted by the earlier server: %v", err)
	}
	s.kill()
}

// agentHere starts an agent of a program, which has the whole host to give, waits until it
// has joined, and gives what ends it.
func (i *instance) agentHere(program, name string) (end func()) {
	i.t.Helper()
	dir, err := os.MkdirTemp("", "nce2e-"+name)
	if err != nil {
		i.t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		i.t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(i.data, "logs", name+"-agent.log"))
	if err != nil {
		i.t.Fatal(err)
	}
	cmd := exec.Command(program, "agent", "--data-dir", dir, "--run-dir", filepath.Join(dir, "run"), "--name", name, "--join", "-", "--accel", "tcg")
	cmd.Stdin = strings.NewReader(get[api.Token](i, "node", "token").Token + "\n")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "HOME="+dir)
	if err := cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	i.eventually("node "+name+" has joined", func() (bool, string) {
		nodes := get[api.List[api.Node]](i, "node", "list").Items
		for _, n := range nodes {
			if n.Name == name && n.Status.State == "ready" {
				return true, ""
			}
		}
		return false, fmt.Sprintf("%+v", nodes)
	})
	return func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		_ = log.Close()
		_ = os.RemoveAll(dir)
	}
}

// oldAgent has an agent of the earlier release join, and a VM live on it.
func (i *instance) oldAgent(program string) {
	i.t.Helper()
	defer i.agentHere(program, "old")()
	i.must("vm", "create", "elder", "--image", "tiny", "--memory", "128MiB", "--disk", "64MiB", "--node", "old", "--start", "--wait")
	i.logged("elder", ready)
	i.must("vm", "pause", "elder", "--wait")
	i.must("vm", "resume", "elder", "--wait")
	i.must("vm", "restart", "elder", "--wait")
	i.appears("elder", "running")
	i.must("vm", "delete", "elder", "--wait", "--yes")
	i.must("node", "remove", "old", "--yes")
}
