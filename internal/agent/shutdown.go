package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/domain/node"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
)

// ShutdownGuests stops every guest because the node itself stops, unless its plan
// says that they are left alone, or suspended: each is asked, and powered off after the grace period. The records stay as they are, so that
// the guests start again with the node. It is called once no command is served
// any more.
func (a *Agent) ShutdownGuests(ctx context.Context, grace time.Duration) error {
	if a.plan.shutdown() == node.ShutdownLeave {
		a.log.Info("guests are left as they are: so says the node's shutdown policy")
		return nil
	}
	a.end() // nothing is brought up any more
	a.work.Wait()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failures []error
	for _, g := range a.all() {
		wg.Go(func() {
			if err := a.shutdownOne(ctx, g, grace); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failures = append(failures, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(failures...)
}

func (a *Agent) shutdownOne(ctx context.Context, g *guest, grace time.Duration) error {
	vm := g.snapshot().VM
	s, alive, err := a.live(ctx, vm)
	if err != nil || !alive {
		return err
	}
	// the next start takes this for a reboot and launches what should run
	if err := g.change(a.records, func(r *record) { r.Boot = "" }); err != nil {
		return err
	}
	a.thawFirst(ctx, g, s.Ref)
	defer a.letGoEnded(ctx, g, s.Epoch)
	if a.plan.shutdown() == node.ShutdownSuspend && a.suspendOne(ctx, s.Ref) {
		return nil
	}
	gone, stop := a.reports.watch(vm, func(s hypervisor.Status) bool { return !s.Phase.OnNode() })
	defer stop()
	if err := a.driver.Shutdown(ctx, s.Ref); err != nil {
		a.log.Warn("a guest cannot be asked to shut down; it is powered off", "vm", vm, "err", err)
		grace = 0
	}
	after, free := a.cfg.Clock.After(grace)
	defer free()
	select {
	case <-gone:
	case <-after:
	}
	_, err = a.driver.Kill(ctx, s.Ref)
	return err
}

// suspendOne saves a guest's memory, from which it goes on with the next start of the
// node; false when that cannot be.
func (a *Agent) suspendOne(ctx context.Context, r hypervisor.Ref) bool {
	d, err := a.suspender()
	if err == nil {
		_, err = d.Suspend(ctx, r, a.savedFile(r.VM))
	}
	if err != nil {
		a.log.Warn("a guest cannot be suspended; it is shut down", "vm", r.VM, "err", err)
	}
	return err == nil
}
