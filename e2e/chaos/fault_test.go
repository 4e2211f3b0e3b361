package chaos

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/api"
)

// fault is what is done to a migration.
type fault struct {
	name string
	// do it, and give what heals it; nil for nothing to heal.
	do func(r *attempt) (heal func() error, err error)
	// hold is how long it lasts.
	hold time.Duration
	// fatal tells whether the guest may end by it at a point: with the process that it is
	// in.
	fatal func(point) bool
}

// Whose the guest is: up to the switch-over it is in the source's process alone, from the
// grant on in the target's alone; between, either's end may be its.
func endsAtSource(p point) bool { return slices.Index(points, p) < slices.Index(points, atGranted) }

func endsAtTarget(p point) bool { return slices.Index(points, p) > slices.Index(points, atSwitchover) }
func endsNever(point) bool      { return false }

// Times that faults last. A server's lease is 3 s, and swapPatience is 3 s too.
const (
	short = 1500 * time.Millisecond
	long  = 5 * time.Second
)

// faults are all of them.
var faults = []fault{
	{name: "none", do: func(*attempt) (func() error, error) { return nil, nil }, fatal: endsNever},
	{name: "kill-source-node", do: onSource(powerOff), hold: short, fatal: endsAtSource},
	{name: "kill-target-node", do: onTarget(powerOff), hold: short, fatal: endsAtTarget},
	{name: "kill-source", do: onSource(killGuest), fatal: endsAtSource},
	{name: "kill-target", do: onTarget(killGuest), fatal: endsAtTarget},
	{name: "freeze-source", do: onSource(freeze), hold: long, fatal: endsNever},
	{name: "freeze-target", do: onTarget(freeze), hold: long, fatal: endsNever},
	{name: "stall-tls", do: onTarget(freezeAgent), hold: long, fatal: endsNever},
	{name: "cut-to-target", do: cutNodes(false, true), hold: long, fatal: endsNever},
	{name: "cut-to-source", do: cutNodes(true, false), hold: long, fatal: endsNever},
	{name: "cut-both", do: cutNodes(true, true), hold: long, fatal: endsNever},
	{name: "cut-target-off", do: onTarget(cutServers), hold: long, fatal: endsNever},
	{name: "cut-source-off", do: onSource(cutServers), hold: long, fatal: endsNever},
	{name: "kill-agent-source", do: onSource(killAgent), hold: short / 5, fatal: endsNever},
	{name: "kill-agent-target", do: onTarget(killAgent), hold: short / 5, fatal: endsNever},
	{name: "kill-agents", do: both(onSource(killAgent), onTarget(killAgent)), hold: short, fatal: endsNever},
	{name: "kill-server", do: killServer, hold: short, fatal: endsNever},
	{name: "kill-servers", do: killServers, hold: short, fatal: endsNever},
	{name: "freeze-server", do: freezeServer, hold: long, fatal: endsNever},
	{name: "database-gone", do: databaseGone, hold: long, fatal: endsNever},
	{name: "database-blinks", do: databaseGone, hold: short / 3, fatal: endsNever},
	{name: "target-full", do: onTarget(fillDisk), hold: short, fatal: endsNever},
	{name: "source-full", do: onSource(fillDisk), hold: short, fatal: endsNever},
	{name: "source-full-and-off", do: onSource(fillAndPowerOff), hold: short, fatal: endsAtSource},
	{name: "cancel", do: cancel, fatal: endsNever},
	{name: "second-request", do: secondRequest, fatal: endsNever},
}

func onSource(do func(*node) (func() error, error)) func(*attempt) (func() error, error) {
	return func(r *attempt) (func() error, error) { return do(r.source) }
}

func onTarget(do func(*node) (func() error, error)) func(*attempt) (func() error, error) {
	return func(r *attempt) (func() error, error) { return do(r.target) }
}

// both does two things at once.
func both(first, second func(*attempt) (func() error, error)) func(*attempt) (func() error, error) {
	return func(r *attempt) (func() error, error) {
		a, err := first(r)
		if err != nil {
			return nil, err
		}
		b, err := second(r)
		return func() error { return errors.Join(a(), b()) }, err
	}
}

func powerOff(n *node) (func() error, error) {
	n.powerOff()
	return n.reboot, nil
}

func killGuest(n *node) (func() error, error) {
	for _, p := range n.guests() {
		_ = syscall.Kill(p, syscall.SIGKILL)
	}
	return nil, nil
}

func freeze(n *node) (func() error, error) {
	return stopped(append(n.others(), n.cmd.Process.Pid)), nil
}

func freezeAgent(n *node) (func() error, error) { return stopped([]int{n.cmd.Process.Pid}), nil }

// stopped stops processes, and gives what lets them go on.
func stopped(pids []int) func() error {
	for _, p := range pids {
		_ = syscall.Kill(p, syscall.SIGSTOP)
	}
	return func() error {
		for _, p := range pids {
			_ = syscall.Kill(p, syscall.SIGCONT)
		}
		return nil
	}
}

func cutNodes(toSource, toTarget bool) func(*attempt) (func() error, error) {
	return func(r *attempt) (func() error, error) {
		net := r.b.net
		if toSource {
			net.cut(r.source.n, net.address(r.target.n))
		}
		if toTarget {
			net.cut(r.target.n, net.address(r.source.n))
		}
		return func() error { net.mend(r.source.n); net.mend(r.target.n); return nil }, nil
	}
}

func cutServers(n *node) (func() error, error) {
	net := n.b.net
	net.cut(n.n, net.servers())
	return func() error { net.mend(n.n); return nil }, nil
}

func killAgent(n *node) (func() error, error) {
	n.end(syscall.SIGKILL)
	return n.start, nil
}

// executing gives the server that has the job.
func (r *attempt) executing() *server {
	var address string
	err := r.b.db.QueryRow(r.ctx, `SELECT s.address FROM jobs j JOIN servers s ON s.id = j.holder WHERE j.id = $1`, r.job).Scan(&address)
	for _, s := range r.b.servers {
		if err == nil && s.address == address {
			return s
		}
	}
	return r.b.servers[0]
}

func killServer(r *attempt) (func() error, error) {
	s := r.executing()
	s.end(syscall.SIGKILL)
	return s.start, nil
}

func killServers(r *attempt) (func() error, error) {
	for _, s := range r.b.servers {
		s.end(syscall.SIGKILL)
	}
	return func() error { return errors.Join(r.b.servers[0].start(), r.b.servers[1].start()) }, nil
}

func freezeServer(r *attempt) (func() error, error) {
	return stopped([]int{r.executing().cmd.Process.Pid}), nil
}

func databaseGone(r *attempt) (func() error, error) {
	for _, s := range r.b.servers {
		s.relay.cut()
	}
	return func() error {
		for _, s := range r.b.servers {
			s.relay.mend()
		}
		return nil
	}, nil
}

// fillDisk leaves no byte of the node's file system.
func fillDisk(n *node) (func() error, error) {
	name := filepath.Join(n.home(), "fill")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for size := int64(64 << 20); size >= 4096; {
		at, err := f.Seek(0, 2)
		if err == nil {
			err = unix.Fallocate(int(f.Fd()), 0, at, size)
		}
		if err != nil {
			size /= 2
		}
	}
	return func() error { return os.Remove(name) }, nil
}

// fillAndPowerOff has a node lose its power that could not write for a while.
func fillAndPowerOff(n *node) (func() error, error) {
	free, err := fillDisk(n)
	return func() error {
		n.powerOff()
		return errors.Join(free(), n.reboot())
	}, err
}

// cancel asks for the end of the job. Past its point of no return that is refused.
func cancel(r *attempt) (func() error, error) {
	_, err := r.b.client.Jobs.Cancel(r.ctx, r.job)
	var no *api.Error
	if errors.As(err, &no) && no.Status == http.StatusConflict {
		err = nil
	}
	return nil, err
}

// secondRequest has to be refused, with the job that is under way.
func secondRequest(r *attempt) (func() error, error) {
	_, err := r.b.client.VMs.Stop(r.ctx, vmName, api.VMStop{Force: true})
	var no *api.Error
	if !errors.As(err, &no) || no.Code != "vm_busy" || no.Job != r.job {
		return nil, fmt.Errorf("a second request got %w, and not the job %s that holds the VM", err, r.job)
	}
	return nil, nil
}
