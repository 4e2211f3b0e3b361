package controltest

import (
	"context"
	"io"
	"sync"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// lane is how the cluster's nodes give each other what they offer: as the real one, once,
// to the one node that was named, with a ticket; without a network.
type lane struct {
	mu     sync.Mutex
	offers map[string]offer
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
