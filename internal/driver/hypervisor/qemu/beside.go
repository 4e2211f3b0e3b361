package qemu

import (
	"os"
	"path/filepath"
)

// What a QEMU that lies under a prefix of its own has below that prefix, beside its
// libraries.
var (
	firmwareBeside = []string{"share/qemu", "share/seabios", "lib/ipxe/qemu"}
	modulesBeside  = []string{"lib/qemu", "lib64/qemu", "lib/x86_64-linux-gnu/qemu"}
)

// beside gives those folders that belong to a QEMU which the distribution has not
// installed, such as /opt/qemu/bin/qemu-system-x86_64. None for one of the system's own,
// which finds all that it needs where everybody's is.
func beside(binary string, names []string) (dirs []string) {
	actual, err := filepath.EvalSymlinks(binary)
	if err != nil {
		return nil
	}
	prefix := filepath.Dir(filepath.Dir(actual))
	if prefix == "/usr" || prefix == "/" {
		return nil
	}
	for _, name := range names {
		dir := filepath.Join(prefix, name)
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}
