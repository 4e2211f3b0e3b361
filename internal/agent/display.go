package agent

import (
	"bytes"
	"context"
	"io"
	"sync"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/rfb"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// keyboards tells at which VMs' screens somebody types: one at a time.
type keyboards struct {
	mu    sync.Mutex
	taken map[id.ID]bool
}

// take gives the keyboard of a VM's screen, until free is called.
func (k *keyboards) take(v id.ID) (free func(), err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.taken[v] {
		return nil, errs.New(errs.Conflict, "somebody else is at the screen of VM %s: look on, or ask again later", v)
	}
	if k.taken == nil {
		k.taken = map[id.ID]bool{}
	}
	k.taken[v] = true
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.taken, v)
	}, nil
}

// displayer gives the driver's ability to show screens.
func (a *Agent) displayer() (hypervisor.Displayer, error) {
	d, ok := a.driver.(hypervisor.Displayer)
	if !ok {
		return nil, errs.New(errs.Unsupported, "this node's hypervisor shows no screens")
	}
	return d, nil
}

// openDisplay joins a screen to a bulk stream and returns at once: the stream lives
// as long as both of its ends.
func (a *Agent) openDisplay(ctx context.Context, p Peer, c *nodelink.OpenDisplay) (any, error) {
	d, err := a.displayer()
	if err != nil {
		return nil, err
	}
	free := func() {}
	if !c.ViewOnly {
		if free, err = a.keyboards.take(c.VM); err != nil {
			return nil, err
		}
	}
	screen, err := d.Display(ctx, hypervisor.Ref{VM: c.VM, Epoch: c.Epoch})
	if err != nil {
		free()
		return nil, err
	}
	s, err := p.Bulk(ctx, c.Ticket)
	if err != nil {
		free()
		_ = screen.Close()
		return nil, err
	}
	go func() {
		defer free()
		if c.ViewOnly {
			look(s, screen)
		} else {
			join(s, screen)
		}
	}()
	return nodelink.Done{}, nil
}

// look is join for somebody who may not type.
func look(viewer, screen io.ReadWriteCloser) {
	var wg sync.WaitGroup
	end := func() { _, _ = viewer.Close(), screen.Close() }
	wg.Go(func() {
		_ = rfb.ViewOnly(screen, viewer)
		end()
	})
	wg.Go(func() {
		_, _ = io.Copy(viewer, screen)
		end()
	})
	wg.Wait()
}

// openScreenshot sends what is on a screen now over a bulk stream.
func (a *Agent) openScreenshot(ctx context.Context, p Peer, c *nodelink.OpenScreenshot) (any, error) {
	d, err := a.displayer()
	if err != nil {
		return nil, err
	}
	picture, err := d.Screenshot(ctx, hypervisor.Ref{VM: c.VM, Epoch: c.Epoch})
	if err != nil {
		return nil, err
	}
	s, err := p.Bulk(ctx, c.Ticket)
	if err != nil {
		return nil, err
	}
	go func() {
		defer s.Close()
		_, _ = io.Copy(s, bytes.NewReader(picture))
	}()
	return nodelink.Done{}, nil
}
