package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// The files of each version, on folders that stand in for a mounted hierarchy: what
// is written where, and not what a kernel makes of it.
func TestCPULimitsOfBothVersions(t *testing.T) {
	for name, c := range map[string]struct {
		tree  func(dir string) *Tree
		limit CPU
		want  map[string]string
	}{
		"v2": {
			func(dir string) *Tree {
				return &Tree{name: "n", clock: clock.System{}, v2: dir, v2Has: []string{"cpu", "io"}}
			},
			CPU{Weight: 300, CapPercent: 150},
			map[string]string{"cpu.weight": "300", "cpu.max": "150000 100000"},
		},
		"v2 without a cap": {
			func(dir string) *Tree {
				return &Tree{name: "n", clock: clock.System{}, v2: dir, v2Has: []string{"cpu"}}
			},
			CPU{},
			map[string]string{"cpu.weight": "100", "cpu.max": "max 100000"},
		},
		"v1": {
			func(dir string) *Tree {
				return &Tree{name: "n", clock: clock.System{}, v1: map[string]string{"cpu": dir}}
			},
			CPU{Weight: 50, CapPercent: 20},
			map[string]string{"cpu.shares": "512", "cpu.cfs_quota_us": "20000", "cpu.cfs_period_us": "100000"},
		},
		"v1 without a cap, of a hybrid host": {
			func(dir string) *Tree {
				return &Tree{name: "n", clock: clock.System{}, v1: map[string]string{"cpu": dir}, v2: dir + "/none"}
			},
			CPU{Weight: 10000},
			map[string]string{"cpu.shares": "102400", "cpu.cfs_quota_us": "-1"},
		},
		"neither": {func(dir string) *Tree { return &Tree{name: "n", clock: clock.System{}, v2: dir} }, CPU{CapPercent: 5}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			group := filepath.Join(dir, "n", "vm")
			if err := os.MkdirAll(group, 0o750); err != nil {
				t.Fatal(err)
			}
			for file := range c.want {
				if err := os.WriteFile(filepath.Join(group, file), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			tree := c.tree(dir)
			if tree.HasCPU() != (c.want != nil) {
				t.Errorf("HasCPU is %v", tree.HasCPU())
			}
			if err := tree.LimitCPU("vm", c.limit); err != nil {
				t.Fatal(err)
			}
			for file, want := range c.want {
				if got, err := os.ReadFile(filepath.Join(group, file)); err != nil || string(got) != want {
					t.Errorf("%s is %q, %v; want %q", file, got, err, want)
				}
			}
		})
	}
}

// On the real hierarchy of this host, the kernel takes the values and gives them back.
func TestCPULimitsOnThisHost(t *testing.T) {
	tree, err := Open("c"+filepath.Base(t.TempDir()), "", clock.System{})
	if err != nil {
		t.Fatal(err)
	}
	if !tree.HasCPU() {
		t.Skip("this host has no cpu controller to use")
	}
	if _, err := tree.Make("vm"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tree.Remove(deadline(t, 1e10), "vm") })
	for _, c := range []struct {
		limit CPU
		quota string
	}{{CPU{Weight: 200, CapPercent: 50}, "50000"}, {CPU{CapPercent: 1}, "1000"}, {CPU{Weight: 10000}, "-1"}, {CPU{Weight: 1}, "-1"}} {
		if err := tree.LimitCPU("vm", c.limit); err != nil {
			t.Fatalf("%+v: %v", c.limit, err)
		}
		if root, v1 := tree.v1["cpu"]; v1 {
			b, err := os.ReadFile(filepath.Join(root, tree.name, "vm", "cpu.cfs_quota_us"))
			if err != nil || strings.TrimSpace(string(b)) != c.quota {
				t.Errorf("%+v: the quota is %q, %v", c.limit, b, err)
			}
		}
	}
}
