package local

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/cgroup"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
	"github.com/novacron/novacron/internal/driver/hypervisor/qemu"
	"github.com/novacron/novacron/internal/driver/hypervisor/uids"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// stopTimeout is more than all stop steps of all children together.
const stopTimeout = 2 * time.Minute

// Down stops the instance and waits until it is gone. It tells whether there was
// one. One that is started meanwhile is another, and is left alone.
func Down(ctx context.Context, p Paths, clk clock.Clock) (ran bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	asked := 0
	for {
		pid, held, err := locked(p)
		if err != nil || !held {
			return ran, err
		}
		ran = true
		switch {
		case asked == 0 && pid != 0:
			// The lock was held when we read the pid in it, so it names its holder,
			// or the one before, which is gone.
			if asked, err = signalUp(pid); err != nil {
				return true, err
			}
		case pid != asked:
			return true, nil
		}
		if err := clk.Sleep(ctx, 50*time.Millisecond); err != nil {
			return true, errs.New(errs.Timeout, "process %d does not stop; the end of %s tells why", pid, p.log("up")).Because(err)
		}
	}
}

// signalUp asks an instance to stop. It gives its pid, and 0 when it is gone.
func signalUp(pid int) (asked int, err error) {
	id, err := process.Identify(pid)
	if err == nil {
		var h *process.Handle
		if h, err = process.Open(id); err == nil {
			err = h.Signal(syscall.SIGINT) // which means the same to an instance that is a service
			_ = h.Close()
		}
	}
	switch {
	case errors.Is(err, process.ErrGone):
		return 0, nil
	case err != nil:
		return 0, errs.New(errs.Forbidden, "process %d cannot be asked to stop: it belongs to another user", pid).Because(err)
	}
	return pid, nil
}

// Running tells of an instance that runs; ready says whether its start is over.
func Running(p Paths) (s Summary, ready, running bool, err error) {
	_, held, err := locked(p)
	if err != nil || !held {
		return Summary{}, false, false, err
	}
	st, ok := readState(p)
	return st.Summary, ok && st.Ready && st.Up.Alive(), true, nil
}

// Leftovers lists the guests' processes that run although no up does.
func Leftovers(p Paths) []process.Identity {
	records, err := filepath.Glob(filepath.Join(p.nodes(), "*", "guests", "vms", "*", keeper.ProcFile))
	if err != nil {
		return nil
	}
	var alive []process.Identity
	for _, r := range records {
		b, err := os.ReadFile(r)
		var proc keeper.Proc
		if err == nil && json.Unmarshal(b, &proc) == nil && proc.Hypervisor.Alive() {
			alive = append(alive, proc.Hypervisor)
		}
	}
	return alive
}

// Clean removes what the instance left on this machine, and nothing else.
func Clean(p Paths) (removed []string, err error) {
	if err := mayClean(p); err != nil {
		return nil, err
	}
	if err := releaseUsers(p); err != nil {
		return nil, err
	}
	if err := removeGroups(p); err != nil {
		return nil, err
	}
	for _, path := range p.owned() {
		if !exists(path) {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return removed, hostError(err, "%s cannot be removed", path)
		}
		removed = append(removed, path)
	}
	// The folders themselves go when nothing foreign is in them.
	for _, dir := range []string{p.Run, p.Data} {
		if err := os.Remove(dir); err == nil {
			removed = append(removed, dir)
		}
	}
	return removed, nil
}

// mayClean refuses while anything runs, and what is not ours.
func mayClean(p Paths) error {
	_, held, err := locked(p)
	if err != nil {
		return err
	}
	if held {
		return errs.New(errs.Conflict, "the instance in %s runs: stop it first with 'novacron down'", p.Data)
	}
	if _, ours := readMarker(p); exists(p.Data) && !ours {
		return errs.New(errs.Conflict, "%s was not made by 'novacron up' (it has no %s), so it is not removed",
			p.Data, filepath.Base(p.marker()))
	}
	if left := Leftovers(p); len(left) > 0 {
		return errs.New(errs.InUse, "%d virtual machines of %s still run: 'novacron up --detach' adopts them, "+
			"'novacron down' then shuts them down", len(left), p.Data)
	}
	return nil
}

// removeEmpty removes those of an ended instance's run folders that hold nothing: no
// guest that lives on, and nothing of others.
func (p Paths) removeEmpty() {
	for _, dir := range []string{p.pgSocket(), filepath.Dir(p.Socket()), p.guests(), p.Run} {
		_ = os.Remove(dir)
	}
}

// owned is everything up makes, the marker last: a clean that breaks off can be
// done again.
func (p Paths) owned() []string {
	return []string{
		p.RAM, p.guests(), p.pgSocket(), filepath.Dir(p.Socket()), p.state(),
		p.nodes(), p.server(), p.postgres(), p.Logs(), p.lock(), p.marker(),
	}
}

// groupsGo is how long a cgroup may take to be removed.
const groupsGo = 5 * time.Second

// removeGroups removes the cgroups and networks that agents which were killed have left. Nodes
// are known by their folders.
func removeGroups(p Paths) error {
	ctx, cancel := context.WithTimeout(context.Background(), groupsGo)
	defer cancel()
	for _, dir := range []string{p.RAM, p.guests()} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			tree, err := cgroup.Open(e.Name(), "", clock.System{})
			if err == nil {
				err = tree.Clear(ctx)
			}
			if err == nil {
				err = qemu.Clear(ctx, p.guests(), e.Name())
			}
			if err != nil {
				return hostError(err, "the cgroups and the network of node %s cannot be removed", e.Name())
			}
		}
	}
	return nil
}

// uidClaims is where the hypervisor driver keeps them, for all of the machine.
const uidClaims = "/run/novacron/uids"

// releaseUsers gives back the user ids lent to guests of this instance.
func releaseUsers(p Paths) error {
	if os.Geteuid() != 0 || !exists(uidClaims) {
		return nil
	}
	pool, err := uids.Open(uidClaims, uids.Range{First: 1000, Count: 1 << 31})
	if err != nil {
		return err
	}
	owners, err := pool.Owners()
	if err != nil {
		return hostError(err, "the user ids lent to virtual machines cannot be read")
	}
	for _, owner := range owners {
		if !strings.HasPrefix(owner, p.Data+"/") {
			continue
		}
		if err := pool.Release(owner); err != nil {
			return hostError(err, "a user id lent to a virtual machine cannot be given back")
		}
	}
	return nil
}
