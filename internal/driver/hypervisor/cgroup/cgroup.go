// Package cgroup gives each VM a control group of its own, on hosts with version
// 1, version 2 or both.
//
// A group is one folder per hierarchy, <mount>/<parent>/novacron-<node>/<name>, with
// two leaves: "guest" for the hypervisor and "keeper" for the process that stays
// with it. Limits are set on the group's folder, so they cover both. The group
// belongs to the VM, not to a process: it is made before a launch and removed
// after the end, by whoever is the agent then.
//
// To put a process into a group costs a grace period of the kernel, about 15 ms
// (cgroup_threadgroup_rwsem of kernel/cgroup/cgroup.c), in which no group can be
// made or removed. So groups are made, and processes put there, ahead of their use,
// before it is known for which VM: a group has a name of its own, which the VM's
// record tells.
//
// Only hierarchies in which folders can be made are used; on a host that gives
// none (no root, read-only mounts) a Tree is empty and everything succeeds with
// nothing done. Controllers tells what there is, so that a node can say so.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// wanted are the version 1 controllers a VM's group uses.
var wanted = []string{"memory", "pids", "cpu", "blkio", "devices"}

const (
	guestLeaf  = "guest"
	keeperLeaf = "keeper"
)

// Limits of a group.
type Limits struct {
	MemoryBytes int64
	Processes   int
	// Devices are the character devices the guest's process may open, as
	// "major:minor"; enforced by the version 1 devices controller alone.
	Devices []string
}

// Tree is the part of a host's hierarchies that belongs to one node.
type Tree struct {
	clock clock.Clock
	name  string // of the node's folder
	// v1 maps a controller to the folder the node's folder is made in; v2 is that
	// of the unified hierarchy, "" without one.
	v1    map[string]string
	v2    string
	v2Has []string
	mu    sync.Mutex // serializes making and removing the node's own folder
}

// Open finds the hierarchies that can be used. The parent is a path below each
// mount, "" for its root.
func Open(node, parent string, c clock.Clock) (*Tree, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	t := &Tree{clock: c, name: "novacron-" + node, v1: map[string]string{}}
	for _, m := range parseMounts(string(b)) {
		dir := filepath.Join(m.path, parent)
		if !t.usable(dir) {
			continue
		}
		if m.v2 {
			t.v2 = dir
			if b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers")); err == nil {
				t.v2Has = strings.Fields(string(b))
			}
			continue
		}
		for _, ctl := range m.controllers {
			if slices.Contains(wanted, ctl) {
				t.v1[ctl] = dir
			}
		}
	}
	return t, nil
}

// usable tries whether folders can be made below dir.
func (t *Tree) usable(dir string) bool {
	probe := filepath.Join(dir, t.name)
	if err := os.MkdirAll(probe, 0o750); err != nil {
		return false
	}
	if unix.Access(filepath.Join(probe, "cgroup.procs"), unix.W_OK) != nil {
		return false
	}
	_ = unix.Rmdir(probe) // stays if VMs of an earlier agent live in it
	return true
}

// Controllers lists what a VM's group is controlled by; empty where there is no
// group at all.
func (t *Tree) Controllers() []string {
	var out []string
	for ctl := range t.v1 {
		out = append(out, ctl)
	}
	if t.v2 != "" {
		out = append(out, "kill")
		for _, ctl := range t.v2Has {
			if slices.Contains(wanted, ctl) {
				out = append(out, ctl)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// roots lists the folders that hold the node's folder, each once.
func (t *Tree) roots() []string {
	var out []string
	for _, dir := range t.v1 {
		out = append(out, dir)
	}
	if t.v2 != "" {
		out = append(out, t.v2)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Group is a VM's group: the folders its two processes join.
type Group struct {
	Guest, Keeper []string
}

// Make makes a group without limits, or completes one that is there.
func (t *Tree) Make(name string) (Group, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var g Group
	if err := t.prepareV2(); err != nil {
		return g, err
	}
	for _, root := range t.roots() {
		dir := filepath.Join(root, t.name, name)
		for _, leaf := range []string{guestLeaf, keeperLeaf} {
			if err := os.MkdirAll(filepath.Join(dir, leaf), 0o750); err != nil {
				return g, err
			}
		}
		g.Guest = append(g.Guest, filepath.Join(dir, guestLeaf))
		g.Keeper = append(g.Keeper, filepath.Join(dir, keeperLeaf))
	}
	return g, nil
}

// prepareV2 hands the controllers of the unified hierarchy down, where it has any.
func (t *Tree) prepareV2() error {
	if t.v2 == "" || len(t.v2Has) == 0 {
		return nil
	}
	node := filepath.Join(t.v2, t.name)
	if err := os.MkdirAll(node, 0o750); err != nil {
		return err
	}
	var enable []string
	for _, ctl := range t.v2Has {
		if slices.Contains(wanted, ctl) || ctl == "io" {
			enable = append(enable, "+"+ctl)
		}
	}
	for _, dir := range []string{t.v2, node} {
		if err := write(dir, "cgroup.subtree_control", strings.Join(enable, " ")); err != nil {
			return err
		}
	}
	return nil
}

// Limit sets the limits of a group wherever the controller is.
func (t *Tree) Limit(name string, l Limits) error {
	set := func(ctl, v1File, v2File, value string) error {
		if root, ok := t.v1[ctl]; ok {
			return write(filepath.Join(root, t.name, name), v1File, value)
		}
		if slices.Contains(t.v2Has, ctl) {
			return write(filepath.Join(t.v2, t.name, name), v2File, value)
		}
		return nil
	}
	if err := set("memory", "memory.limit_in_bytes", "memory.max", strconv.FormatInt(l.MemoryBytes, 10)); err != nil {
		return err
	}
	if err := set("pids", "pids.max", "pids.max", strconv.Itoa(l.Processes)); err != nil {
		return err
	}
	root, ok := t.v1["devices"]
	if !ok {
		return nil
	}
	guest := filepath.Join(root, t.name, name, guestLeaf)
	if err := write(guest, "devices.deny", "a"); err != nil {
		return err
	}
	for _, d := range l.Devices {
		if err := write(guest, "devices.allow", "c "+d+" rw"); err != nil {
			return err
		}
	}
	return nil
}

func write(dir, file, value string) error {
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
		return fmt.Errorf("set %s of a cgroup to %q: %w", file, value, err)
	}
	return nil
}

// Members lists the processes of a group's guest leaf.
func (t *Tree) Members(name string) []int { return t.members(name, guestLeaf) }

func (t *Tree) members(name, leaf string) []int {
	var out []int
	for _, root := range t.roots() {
		b, err := os.ReadFile(filepath.Join(root, t.name, name, leaf, "cgroup.procs"))
		if err != nil {
			continue
		}
		for f := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				out = append(out, pid)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Kill ends whatever is in a group's guest leaf and returns when it is empty, or
// with an error when ctx ends first. The keeper, which writes down how the guest
// ended, goes on.
func (t *Tree) Kill(ctx context.Context, name string) error { return t.kill(ctx, name, guestLeaf) }

// KillAll ends whatever is in a group, and returns as Kill does. It is for groups
// that nobody watches over any more: a process beside the hypervisor whose keeper was
// killed lives on in the keeper's leaf, and may wait for that keeper forever.
func (t *Tree) KillAll(ctx context.Context, name string) error {
	return errors.Join(t.kill(ctx, name, guestLeaf), t.kill(ctx, name, keeperLeaf))
}

func (t *Tree) kill(ctx context.Context, name, leaf string) error {
	for {
		left := t.members(name, leaf)
		if len(left) == 0 {
			return nil
		}
		killed := t.v2 != "" && write(filepath.Join(t.v2, t.name, name, leaf), "cgroup.kill", "1") == nil
		if !killed {
			t.signal(name, leaf, left)
		}
		if err := t.clock.Sleep(ctx, 2*time.Millisecond); err != nil {
			return fmt.Errorf("processes %v stay in the cgroup: %w", left, err)
		}
	}
}

// signal kills members one by one where the kernel cannot kill the group. Each is
// held by a pidfd before it is looked up again, so a pid given away meanwhile is
// not signalled.
func (t *Tree) signal(name, leaf string, pids []int) {
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if slices.Contains(t.members(name, leaf), pid) {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		_ = unix.Close(fd)
	}
}

// Remove removes a group, and the node's folder with the last one. A group
// with a process in it stays, with an error once ctx ends.
func (t *Tree) Remove(ctx context.Context, name string) error {
	for _, root := range t.roots() {
		dir := filepath.Join(root, t.name, name)
		for _, d := range []string{filepath.Join(dir, guestLeaf), filepath.Join(dir, keeperLeaf), dir} {
			if err := t.removeOne(ctx, d); err != nil {
				return err
			}
		}
		t.mu.Lock()
		_ = unix.Rmdir(filepath.Join(root, t.name))
		t.mu.Unlock()
	}
	return nil
}

// removeOne removes a folder; one just left by its last process is busy for a
// moment.
func (t *Tree) removeOne(ctx context.Context, dir string) error {
	for {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("remove a cgroup: %w", err)
		}
		if serr := t.clock.Sleep(ctx, 2*time.Millisecond); serr != nil {
			return fmt.Errorf("remove a cgroup: %w", err)
		}
	}
}

// List names the node's groups, of whatever hierarchy.
func (t *Tree) List() []string {
	var out []string
	for _, root := range t.roots() {
		entries, _ := os.ReadDir(filepath.Join(root, t.name))
		for _, e := range entries {
			if e.IsDir() {
				out = append(out, e.Name())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Clear removes all groups of the node, for when it has no agent any more. One with
// a process in it stays, with an error once ctx ends.
func (t *Tree) Clear(ctx context.Context) error {
	var failed []error
	for _, name := range t.List() {
		failed = append(failed, t.Remove(ctx, name))
	}
	return errors.Join(failed...)
}

// Of names the group whose guest leaf holds a process, or gives "".
func (t *Tree) Of(pid int) string {
	for _, name := range t.List() {
		if slices.Contains(t.Members(name), pid) {
			return name
		}
	}
	return ""
}
