package agent

import (
	"context"
	"sync"
	"time"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
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
type samples struct {
	mu     sync.Mutex
	guests map[id.ID]*sample
}

// sample is the last look at one incarnation.
type sample struct {
	epoch gen.OwnerEpoch
	// seen: has there been one? Then rate is in bytes per second, as of at.
	seen       bool
	rate       int64
	at         time.Duration
	next, wait time.Duration
}

func newSamples() samples { return samples{guests: map[id.ID]*sample{}} }

// due gives those of the guests there that are to be looked at, and forgets the others that
// are not there any more.
func (s *samples) due(there []hypervisor.Ref, now time.Duration) (out []hypervisor.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := make(map[id.ID]*sample, len(there))
	for _, r := range there {
		at := s.guests[r.VM]
		if at == nil || at.epoch != r.Epoch {
			at = &sample{epoch: r.Epoch, wait: sampleSoon / 2, next: now + spread(sampleEvery/2)}
		}
		kept[r.VM] = at
		if at.next <= now {
			at.wait = min(2*at.wait, sampleRare)
			at.next = now + spread(at.wait)
			out = append(out, r)
		}
	}
	s.guests = kept
	return out
}

// saw keeps what was seen.
func (s *samples) saw(r hypervisor.Ref, rate int64, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.guests[r.VM]; at != nil && at.epoch == r.Epoch {
		at.seen, at.rate, at.at = true, rate, now
	}
}

// last is what was seen, and how long ago.
func (s *samples) last(r hypervisor.Ref, now time.Duration) (rate int64, age time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.guests[r.VM]
	if at == nil || at.epoch != r.Epoch || !at.seen {
		return 0, 0, false
	}
	return at.rate, now - at.at, true
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
	if err == nil {
		a.samples.saw(r, rate, a.cfg.Clock.Boot())
	}
	return rate, err
}

// sampleMemory tells how fast a guest changes its memory.
func (a *Agent) sampleMemory(ctx context.Context, _ Peer, c *nodelink.SampleMemory) (any, error) {
	r := hypervisor.Ref{VM: c.VM, Epoch: c.Epoch}
	if rate, age, ok := a.samples.last(r, a.cfg.Clock.Boot()); ok && c.KnownWithinMS >= age.Milliseconds() {
		return nodelink.MemorySample{DirtyRate: rate, AgeMS: age.Milliseconds()}, nil
	}
	rate, err := a.lookAt(ctx, r)
	return nodelink.MemorySample{DirtyRate: rate}, err
}
