package hypertest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Process is one of the kernel's list.
type Process struct {
	PID  int
	Args []string
}

// Processes lists those that have one of the words, such as a folder's path, on
// their command line, or in a path that is shown in their jail: what a jailed
// process is told names nothing of the host.
func Processes(words ...string) (out []Process) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(line) == 0 {
			continue // gone, or the kernel's
		}
		mounts, _ := os.ReadFile(filepath.Join(dir, "mountinfo"))
		for _, word := range words {
			if bytes.Contains(line, []byte(word)) || shows(mounts, word) {
				out = append(out, Process{pid, strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")})
				break
			}
		}
	}
	return out
}

// shows tells whether a part of a path is bound: the fourth field of a mount is its
// path within its own file system.
func shows(mounts []byte, word string) bool {
	for line := range bytes.Lines(mounts) {
		// a file system may be mounted at a part of the path
		if f := bytes.Fields(line); len(f) > 3 && len(f[3]) > 1 && (bytes.Contains(f[3], []byte(word)) || within(word, string(f[3]))) {
			return true
		}
	}
	return false
}

// within tells whether path, cut at one of its folders, is where root begins.
func within(path, root string) bool {
	for i := 1; i < len(path); i++ {
		if path[i] == '/' && len(path)-i > 8 && strings.HasPrefix(root, path[i:]) {
			return true
		}
	}
	return false
}
