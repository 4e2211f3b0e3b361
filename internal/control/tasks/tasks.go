// Package tasks holds the reconcilers: what repairs what no request asked for.
// Each takes no arguments, reads everything, does bounded work, keeps no memory,
// and returns a status that prints ("novacron debug tasks").
package tasks

import (
	"context"
	"errors"
	"time"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/blob"
	"github.com/novacron/novacron/internal/engine/reconcile"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Env is what tasks may use.
type Env struct {
	Store  *store.Store
	Images *blob.Dir
	Clock  clock.Clock
	// Connected lists the nodes with a session with this server; Drop ends one.
	Connected func() []id.ID
	Drop      func(node id.ID)
	// Held tells whether anything is in recovery hold: no file is removed then, since
	// the database may not know whose it is. May be nil.
	Held func() bool
	// CollectImages deletes images whose files nobody sends any more, and counts them.
	CollectImages func(context.Context) (int64, error)
	// RestartEnded starts VMs again as their restart policies say, and tells what it did.
	RestartEnded func(context.Context, vm.Backoff) (control.Restarted, error)
	// TellPlans tells nodes what to do when their hosts start and shut down.
	TellPlans func(context.Context) (control.PlansTold, error)
	// Committed wakes the executor after a commit.
	Committed func()
	// Nudge has a task run at once; may be nil.
	Nudge func(task string)
}

const unfinishedImages = "images-unfinished"

// PendingVMs is the task to nudge when room was made.
const PendingVMs = "pending-vms"

// All lists every reconciler.
func All(e Env) []reconcile.Task {
	return []reconcile.Task{
		{Name: "idempotency-keys", Period: time.Hour, LeaderOnly: true, Activate: e.sweepKeys},
		{Name: "image-files", Period: 10 * time.Minute, Activate: e.sweepFiles},
		{Name: "image-uploads", Period: 10 * time.Minute, Activate: e.sweepUploads},
		{Name: unfinishedImages, Period: 10 * time.Minute, LeaderOnly: true, Activate: e.collectImages},
		{Name: "node-usage", Period: time.Minute, LeaderOnly: true, Activate: e.checkUsage},
		{Name: PendingVMs, Period: 30 * time.Second, Activate: e.wakePending},
		{Name: "host-plans", Period: 2 * time.Second, LeaderOnly: true, Activate: func(ctx context.Context) (any, error) { return e.TellPlans(ctx) }},
		{Name: "vm-restarts", Period: time.Second, LeaderOnly: true, Activate: e.restartEnded},
		{Name: "removed-nodes", Period: 5 * time.Second, Activate: e.dropRemoved},
	}
}

// restartEnded starts VMs again whose guests ended by themselves.
func (e Env) restartEnded(ctx context.Context) (any, error) {
	return e.RestartEnded(ctx, vm.DefaultBackoff())
}

// swept is the status of tasks that remove what is too old.
type swept struct {
	Removed int64 `json:"removed"`
	Kept    int64 `json:"kept"`
}

// sweepKeys forgets idempotency keys older than a day.
func (e Env) sweepKeys(ctx context.Context) (any, error) {
	n, err := e.Store.IdempotencySweep(ctx)
	return swept{Removed: n}, err
}

// unreferencedAge is how long an image file that no image has may lie: longer
// than any upload takes between writing the file and recording it.
const unreferencedAge = time.Hour

// sweepFiles removes image files that no image has: an upload whose record
// failed, or a deletion that another server finished; and what a server that was
// killed left half-written.
func (e Env) sweepFiles(ctx context.Context) (any, error) {
	if e.Held != nil && e.Held() {
		return swept{}, nil
	}
	have, err := e.Images.List()
	if err = errors.Join(err, e.Images.Sweep()); err != nil {
		return nil, err
	}
	used, err := e.Store.ImageSums(ctx)
	if err != nil {
		return nil, err
	}
	var s swept
	for _, sum := range have {
		info, err := e.Images.Age(sum)
		if used[sum] || err != nil || e.Clock.Now().Sub(info.ModTime()) < unreferencedAge {
			s.Kept++
			continue
		}
		if err := e.Images.Remove(sum); err != nil {
			return s, err
		}
		s.Removed++
	}
	return s, nil
}

// sweepUploads forgets uploads of which nothing arrived for a day, and removes
// what arrived of uploads that are no more from this server's folder.
func (e Env) sweepUploads(ctx context.Context) (any, error) {
	if e.Held != nil && e.Held() {
		return swept{}, nil
	}
	if err := e.expireUploads(ctx); err != nil {
		return nil, err
	}
	// parts first: one that has no record now had one when it was made
	parts, err := e.Images.Parts()
	if err != nil {
		return nil, err
	}
	open, err := e.Store.UploadIDs(ctx)
	if err != nil {
		return nil, err
	}
	var s swept
	for _, u := range parts {
		if open[u] {
			s.Kept++
			continue
		}
		removed, err := e.Images.RemovePart(u)
		if err != nil {
			return s, err
		}
		if removed {
			s.Removed++
		}
	}
	return s, nil
}

// expireUploads forgets what nobody went on with. One may have been the last of its
// image.
func (e Env) expireUploads(ctx context.Context) error {
	n, err := e.Store.UploadExpire(ctx)
	if err == nil && n > 0 && e.Nudge != nil {
		e.Nudge(unfinishedImages)
	}
	return err
}

// collectImages deletes images that were begun and are not finished: what was sent of
// them is collected too. Where anything is held, an image is left as it is.
func (e Env) collectImages(ctx context.Context) (any, error) {
	if e.Held != nil && e.Held() {
		return swept{}, nil
	}
	n, err := e.CollectImages(ctx)
	return swept{Removed: n}, err
}

// drift is the status of node-usage.
type drift struct {
	Drifted []string `json:"drifted"`
}

// checkUsage compares nodes' counters with their VMs. They are kept by the same
// transactions, so a difference is a bug: it is shown, not covered up.
func (e Env) checkUsage(ctx context.Context) (any, error) {
	d, err := e.Store.NodeUsageDrift(ctx)
	return drift{d}, err
}

// dropRemoved ends sessions of nodes that were removed through another server.
func (e Env) dropRemoved(ctx context.Context) (any, error) {
	leases, err := e.Store.NodeLeases(ctx)
	if err != nil {
		return nil, err
	}
	var s swept
	for _, n := range e.Connected() {
		if _, ok := leases[n]; ok {
			s.Kept++
			continue
		}
		e.Drop(n)
		s.Removed++
	}
	return s, nil
}

// lookAgainEvery spaces the looks of pending VMs: a hundred nodes that come back
// together make room once, not a hundred times.
const lookAgainEvery = 500 * time.Millisecond

// woken is the status of pending-vms.
type woken struct {
	Woken int64 `json:"woken"`
}

// wakePending lets VMs that fitted nowhere look again. They do so by themselves
// every few seconds; this makes a node that comes be used at once.
func (e Env) wakePending(ctx context.Context) (any, error) {
	n, err := workflow.Wake(ctx, e.Store.Pool(), workflow.Filter{Kind: vm.JobCreate})
	if err != nil || n == 0 {
		return woken{n}, err
	}
	e.Committed()
	return woken{n}, e.Clock.Sleep(ctx, lookAgainEvery)
}
