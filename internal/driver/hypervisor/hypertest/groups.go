package hypertest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// settling is how long a group may be neither a guest's nor ready: while it is made
// or removed.
const settling = 5 * time.Second

// Groups lists the cgroups of a node that hold a guest or nobody, by its short id,
// read from the kernel. The one that a driver keeps ready for its next launch, in
// which nothing but a keeper waits, is not among them.
func Groups(node string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), settling)
	defer cancel()
	for {
		left := groups(node)
		if len(left) == 0 || (clock.System{}).Sleep(ctx, 10*time.Millisecond) != nil {
			return left
		}
	}
}

func groups(node string) (left []string) {
	ready := 0
	for _, dir := range nodeFolders(node) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		empty := true
		for _, e := range entries {
			if e.IsDir() {
				empty = false
				left = append(left, e.Name())
			}
		}
		if empty {
			return []string{"cgroup " + dir}
		}
	}
	slices.Sort(left)
	left = slices.Compact(left)
	left = slices.DeleteFunc(left, func(name string) bool {
		if ready > 0 || !waits(node, name) {
			return false
		}
		ready++
		return true
	})
	for i, name := range left {
		left[i] = "cgroup " + name
	}
	return left
}

func nodeFolders(node string) []string {
	v2, _ := filepath.Glob("/sys/fs/cgroup/novacron-" + node)
	v1, _ := filepath.Glob("/sys/fs/cgroup/*/novacron-" + node)
	return append(v2, v1...)
}

// waits tells whether a keeper without a guest is in the group, and nothing but what
// belongs to it.
func waits(node, name string) bool {
	keepers := 0
	for _, dir := range nodeFolders(node) {
		lists, _ := filepath.Glob(filepath.Join(dir, name, "*", "cgroup.procs"))
		for _, list := range lists {
			pids, _ := os.ReadFile(list)
			for pid := range strings.FieldsSeq(string(pids)) {
				line, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
				switch {
				case err != nil:
				case bytes.Contains(line, []byte("\x00keeper\x00----")):
					keepers++
				case !bytes.Contains(line, []byte("\x00keeper-exec\x00")):
					return false
				}
			}
		}
	}
	return keepers > 0
}
