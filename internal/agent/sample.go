package agent

import (
	"context"
	"sync"
	"time"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
)

const (
	// sampleTime bounds a look at a guest's memory.
	sampleTime = 5 * time.Second
	// sampleEvery is how often is looked whose memory is to be looked at.
	sampleEvery = 5 * time.Second
	// samplesAtOnce bounds how many guests are looked at at once, each for a second.
	samplesAtOnce = 4
	// A guest is looked at soon after it began to execute, and then less and less often, up
	// to sampleRare.
	sampleSoon = 10 * time.Second
	sampleRare = 5 * time.Minute
)

// samples are how fast guests change their memory, as it was seen last: so that who wants
// to move one need not wait for a look.
type samples struct{ rota[sample] }

// sample is the last look at a guest.
type sample struct {
	// known: has there been one? Then rate is in bytes per second, as of at.
	known bool
	rate  int64
	at    time.Duration
}

func newSamples() samples { return samples{newRota[sample](sampleSoon)} }

// saw keeps what a look has seen, if it has.
func (s *samples) saw(r hypervisor.Ref, rate int64, err error, now time.Duration) {
	s.looked(r, now, func(seen *sample, last time.Duration) time.Duration {
		if err == nil {
			*seen = sample{known: true, rate: rate, at: now}
		}
		return min(2*last, sampleRare)
	})
}

// tendSamples looks at the memory of guests whose time has come.
func (a *Agent) tendSamples(ctx context.Context) {
	if _, ok := a.driver.(hypervisor.Sampler); !ok {
		return
	}
	var wg sync.WaitGroup
	free := make(chan struct{}, samplesAtOnce)
	for _, r := range a.samples.due(a.reports.there(), a.cfg.Clock.Boot()) {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			_, _ = a.lookAt(ctx, r) // it does not run any more, or moves
		})
	}
	wg.Wait()
}

// lookAt looks at a guest's memory, for about a second.
func (a *Agent) lookAt(ctx context.Context, r hypervisor.Ref) (int64, error) {
	d, ok := a.driver.(hypervisor.Sampler)
	if !ok {
		return 0, errs.New(errs.Unsupported, "this node's hypervisor does not tell how fast guests change their memory")
	}
	ctx, cancel := a.withinTime(ctx, sampleTime)
	defer cancel()
	rate, err := d.Sample(ctx, r)
	a.samples.saw(r, rate, err, a.cfg.Clock.Boot())
	return rate, err
}

// sampleMemory tells how fast a guest changes its memory.
func (a *Agent) sampleMemory(ctx context.Context, _ Peer, c *nodelink.SampleMemory) (any, error) {
	r := hypervisor.Ref{VM: c.VM, Epoch: c.Epoch}
	if was, _ := a.samples.last(r); was.known {
		if age := (a.cfg.Clock.Boot() - was.at).Milliseconds(); age < c.KnownWithinMS {
			return nodelink.MemorySample{DirtyRate: was.rate, AgeMS: age}, nil
		}
	}
	rate, err := a.lookAt(ctx, r)
	return nodelink.MemorySample{DirtyRate: rate}, err
}
