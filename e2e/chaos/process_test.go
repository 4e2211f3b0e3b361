package chaos

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// others are the node's processes beside its agent: keepers and their aides, which name
// its folder, and those in jails, which have a mount of its file system.
func (n *node) others() (pids []int) {
	var at unix.Stat_t
	if unix.Stat(n.home(), &at) != nil {
		return nil
	}
	dev := fmt.Sprintf("%d:%d", unix.Major(at.Dev), unix.Minor(at.Dev))
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() || n.process != nil && pid == n.cmd.Process.Pid {
			continue
		}
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(line) == 0 {
			continue // gone, or the kernel's
		}
		if bytes.Contains(line, []byte(n.home()+"/")) || jailedOn(dev, filepath.Join(dir, "mountinfo")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// jailedOn tells whether a process has a folder of a file system for a mount, and not all of
// it, as whoever sees the host's mounts has.
func jailedOn(dev, mountinfo string) bool {
	mounts, _ := os.ReadFile(mountinfo)
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 3 && f[2] == dev && f[3] != "/" {
			return true
		}
	}
	return false
}

// guests are the node's hypervisor processes.
func (n *node) guests() (pids []int) {
	for _, pid := range n.others() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		program, _, _ := strings.Cut(string(line), "\x00")
		if strings.Contains(program, "qemu-system") {
			pids = append(pids, pid)
		}
	}
	return pids
}
