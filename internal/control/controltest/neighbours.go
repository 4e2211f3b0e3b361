package controltest

import (
	"context"
	"io"
	"sync"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// lane is how the cluster's nodes give each other what they offer: as the real one, once,
// to the one node that was named, with a ticket; without a network.
type lane struct {
	mu     sync.Mutex
	offers map[string]offer
	doors  map[string]*landing
	cut    bool
	// apart are pairs of which the first does not reach the second.
	apart map[[2]id.ID]bool
}

// landing is an open door, and what has come through it.
type landing struct {
	from, to id.ID
	serve    func(ctx context.Context, name string, c io.ReadWriteCloser)
	ctx      context.Context //nolint:containedctx // connections come after the call that opened the door has returned, and end with the door
	end      context.CancelFunc
	through  map[io.Closer]bool
}

type offer struct {
	from, to id.ID
	serve    func(io.Writer) error
}

// side is one node's end of the lane.
type side struct {
	lane *lane
	node *Node
}

var _ agent.Neighbours = side{}

// Offer implements agent.Neighbours.
func (s side) Offer(to id.ID, ticket string, serve func(io.Writer) error) (string, error) {
	s.lane.mu.Lock()
	defer s.lane.mu.Unlock()
	s.lane.offers[ticket] = offer{s.node.ID, to, serve}
	return s.node.Name, nil
}

// Read implements agent.Neighbours.
func (s side) Read(ctx context.Context, from nodelink.ImageSource, to io.Writer) error {
	s.lane.mu.Lock()
	o, ok := s.lane.offers[from.Ticket]
	if ok = ok && o.from == from.Node && o.to == s.node.ID; ok {
		delete(s.lane.offers, from.Ticket)
	}
	s.lane.mu.Unlock()
	if !ok {
		return errs.New(errs.NodeUnreachable, "nothing is offered at %s", from.Address)
	}
	r, w := io.Pipe()
	stop := context.AfterFunc(ctx, func() { _ = r.CloseWithError(ctx.Err()) })
	defer stop()
	go func() { _ = w.CloseWithError(o.serve(w)) }()
	_, err := io.Copy(to, r)
	_ = r.Close()
	return err
}

// Land implements agent.Neighbours.
func (s side) Land(from id.ID, ticket string, _ func(name string) bool, serve func(ctx context.Context, name string, c io.ReadWriteCloser)) (string, func(), error) {
	s.lane.mu.Lock()
	defer s.lane.mu.Unlock()
	d := &landing{from: from, to: s.node.ID, serve: serve, through: map[io.Closer]bool{}}
	d.ctx, d.end = context.WithCancel(context.Background())
	s.lane.doors[ticket] = d
	return s.node.Name, func() {
		s.lane.mu.Lock()
		defer s.lane.mu.Unlock()
		d.end()
		for c := range d.through {
			_ = c.Close()
		}
		if s.lane.doors[ticket] == d {
			delete(s.lane.doors, ticket)
		}
	}, nil
}

// Reach implements agent.Neighbours.
func (s side) Reach(_ context.Context, w agent.Way) (io.ReadWriteCloser, error) {
	if reaching := s.node.cluster.Reaching; reaching != nil {
		if err := reaching(w.Name); err != nil {
			return nil, err
		}
	}
	s.lane.mu.Lock()
	defer s.lane.mu.Unlock()
	d := s.lane.doors[w.Ticket]
	if d == nil || d.from != s.node.ID || d.to != w.Node || s.lane.cut {
		return nil, errs.New(errs.NodeUnreachable, "nobody is let in at %s", w.Address)
	}
	near, far, err := hypertest.SocketPair()
	if err != nil {
		return nil, err
	}
	d.through[near], d.through[far] = true, true
	go func() {
		defer func() { _ = far.Close() }()
		d.serve(d.ctx, w.Name, far)
	}()
	return near, nil
}

// Relayed implements agent.Neighbours.
func (s side) Relayed(string) bool { return false }

// Admit implements agent.Neighbours.
func (s side) Admit(context.Context, agent.Peer, string, string) error {
	return errs.New(errs.Unsupported, "the lane has no servers")
}

// Probe implements agent.Neighbours.
func (s side) Probe(ctx context.Context, from nodelink.ImageSource) error {
	if s.lane.isApart(s.node.ID, from.Node) {
		return errs.New(errs.NodeUnreachable, "nobody is let in at %s", from.Address)
	}
	return s.Read(ctx, from, io.Discard)
}

func (l *lane) isApart(from, to id.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut || l.apart[[2]id.ID{from, to}]
}

// Part has one node find that it does not reach another one by itself, when it is asked.
func (c *Cluster) Part(from, to *Node) {
	c.lane.mu.Lock()
	defer c.lane.mu.Unlock()
	c.lane.apart[[2]id.ID{from.ID, to.ID}] = true
}

// Cut ends what nodes say to each other, and lets nothing begin until Mend.
func (c *Cluster) Cut() {
	c.lane.mu.Lock()
	defer c.lane.mu.Unlock()
	c.lane.cut = true
	for _, d := range c.lane.doors {
		for conn := range d.through {
			_ = conn.Close()
		}
		clear(d.through)
	}
}

// Mend lets nodes speak with each other again.
func (c *Cluster) Mend() {
	c.lane.mu.Lock()
	defer c.lane.mu.Unlock()
	c.lane.cut = false
}
