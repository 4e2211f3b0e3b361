package hypertest

import (
	"context"
	"fmt"
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

// Groups lists the cgroups of a node, by its short id, as the kernel has them, each
// with what the keepers in it are called: a guest's has the VM's id. The one that a
// driver keeps ready for its next launch, in which a keeper waits that is not yet
// called anything, is not among them.
func Groups(node string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), settling)
	defer cancel()
	for {
		left, settled := groups(node)
		if settled || (clock.System{}).Sleep(ctx, 10*time.Millisecond) != nil {
			return left
		}
	}
}

// groups is settled when each group has its guest, and one at most is ready.
func groups(node string) (left []string, settled bool) {
	var names []string
	settled = true
	for _, dir := range nodeFolders(node) {
		here := folders(dir)
		if len(here) == 0 {
			left, settled = append(left, "cgroup "+dir), false
		}
		names = append(names, here...)
	}
	slices.Sort(names)
	ready := 0
	for _, name := range slices.Compact(names) {
		called := keepers(node, name)
		if slices.Equal(called, []string{""}) && ready == 0 {
			ready++
			continue
		}
		settled = settled && len(called) > 0 && called[0] != ""
		left = append(left, fmt.Sprintf("cgroup %s %q", name, called))
	}
	return left, settled
}

func nodeFolders(node string) []string {
	v2, _ := filepath.Glob("/sys/fs/cgroup/novacron-" + node)
	v1, _ := filepath.Glob("/sys/fs/cgroup/*/novacron-" + node)
	return append(v2, v1...)
}

func folders(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// keepers tells what the keepers in a group are called: "" is one that waits.
func keepers(node, name string) (called []string) {
	for _, dir := range nodeFolders(node) {
		pids, _ := os.ReadFile(filepath.Join(dir, name, "keeper", "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(pids)) {
			line, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
			words := strings.Split(string(line), "\x00")
			if err == nil && len(words) > 2 {
				called = append(called, strings.Trim(words[2], "- "))
			}
		}
	}
	slices.Sort(called)
	return slices.Compact(called)
}
