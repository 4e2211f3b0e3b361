package agent

import (
	"context"
	"io"
	"sync"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// openConsole joins the serial console to a bulk stream and returns at once: the
// stream lives as long as both of its ends.
func (a *Agent) openConsole(ctx context.Context, p Peer, c *nodelink.OpenConsole) (any, error) {
	console, err := a.driver.Console(ctx, hypervisor.Ref{VM: c.VM, Epoch: c.Epoch})
	if err != nil {
		return nil, err
	}
	s, err := p.Bulk(ctx, c.Ticket)
	if err != nil {
		_ = console.Close()
		return nil, err
	}
	go join(s, console)
	return nodelink.Done{}, nil
}

// join copies both ways until either side ends, then closes both.
func join(a, b io.ReadWriteCloser) {
	var wg sync.WaitGroup
	for _, way := range [][2]io.ReadWriteCloser{{a, b}, {b, a}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	wg.Wait()
}

// openLog copies the serial log to a bulk stream.
func (a *Agent) openLog(ctx context.Context, p Peer, c *nodelink.OpenLog) (any, error) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	log, err := a.driver.Log(life, c.VM, c.Follow)
	if errs.Is(err, errs.NotFound) {
		err = errs.New(errs.InvalidState, "VM %s has not run on this node, or not since it moved here: its log begins when it starts", c.VM).Because(err)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	s, err := p.Bulk(ctx, c.Ticket)
	if err != nil {
		cancel()
		_ = log.Close()
		return nil, err
	}
	go func() {
		defer cancel()
		defer s.Close()
		defer log.Close()
		go func() {
			// the reader says nothing: its end means that nobody listens any more
			_, _ = io.Copy(io.Discard, s)
			cancel()
			_ = log.Close()
		}()
		_, _ = io.Copy(s, log)
	}()
	return nodelink.Done{}, nil
}
