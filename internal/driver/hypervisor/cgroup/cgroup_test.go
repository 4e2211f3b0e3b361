package cgroup

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/internal/vocab/clock"
)

func TestParseMounts(t *testing.T) {
	got := parseMounts(`31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
41 31 0:38 / /sys/fs/cgroup/uni\040fied rw,relatime - cgroup2 cgroup2 rw
half a line
`)
	want := []mount{
		{path: "/sys/fs/cgroup/cpu,cpuacct", controllers: []string{"rw", "cpu", "cpuacct"}},
		{path: "/sys/fs/cgroup/uni fied", v2: true},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mount{})); diff != "" {
		t.Fatal(diff)
	}
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// The whole life of a group on this host, with whatever hierarchies it has.
func TestGroupHoldsLimitsKillsAndVanishes(t *testing.T) {
	tree, err := Open("t"+strconv.Itoa(os.Getpid()), "", clock.System{})
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.roots()) == 0 && os.Getuid() == 0 {
		t.Fatal("root finds no hierarchy to use")
	}
	ctx := deadline(t, 30*time.Second)
	g, err := tree.Make("vm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := deadline(t, 10*time.Second)
		_ = tree.Kill(ctx, "vm")
		_ = tree.Remove(ctx, "vm")
	})
	if _, err := tree.Make("vm"); err != nil {
		t.Fatalf("making it again: %v", err)
	}
	for _, l := range []Limits{
		{MemoryBytes: 256 << 20, Processes: 16, Devices: []string{"1:3"}}, {MemoryBytes: 512 << 20, Processes: 32},
	} {
		if err := tree.Limit("vm", l); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	for _, dir := range g.Guest {
		if err := write(dir, "cgroup.procs", strconv.Itoa(cmd.Process.Pid)); err != nil {
			t.Fatal(err)
		}
	}
	if got := tree.Of(cmd.Process.Pid); got != "vm" && len(g.Guest) > 0 {
		t.Errorf("the process is in group %q", got)
	}
	if got := tree.Of(os.Getpid()); got != "" {
		t.Errorf("the test is in group %q", got)
	}
	if root, ok := tree.v1["pids"]; ok {
		b, _ := os.ReadFile(filepath.Join(root, tree.name, "vm", "pids.max"))
		if strings.TrimSpace(string(b)) != "32" {
			t.Errorf("pids.max is %q, want 32", b)
		}
	}
	if len(g.Guest) == 0 {
		_ = cmd.Process.Kill()
	} else if err := tree.Remove(deadline(t, 50*time.Millisecond), "vm"); err == nil {
		t.Fatal("a group with a process in it was removed")
	}
	if err := tree.Kill(ctx, "vm"); err != nil {
		t.Fatal(err)
	}
	<-ended
	if _, err := tree.Make("other"); err != nil {
		t.Fatal(err)
	}
	if err := tree.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	if left := tree.List(); len(left) != 0 {
		t.Fatalf("left %v", left)
	}
	for _, root := range tree.roots() {
		if _, err := os.Stat(filepath.Join(root, tree.name)); err == nil {
			t.Errorf("%s still has the node's folder", root)
		}
	}
}
