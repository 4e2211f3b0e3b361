package agent

import (
	"context"
	"io"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// alone refuses what takes other nodes.
func (a *Agent) alone() error {
	if a.cfg.Neighbours != nil {
		return nil
	}
	return errs.New(errs.Unsupported, "this node speaks with no other node")
}

// admitRelay lets another node in by way of a server.
func (a *Agent) admitRelay(ctx context.Context, p Peer, c *nodelink.AdmitRelay) (any, error) {
	if err := a.alone(); err != nil {
		return nil, err
	}
	return nodelink.Done{}, a.cfg.Neighbours.Admit(ctx, p, c.Address, c.Ticket)
}

// offerProbe lets another node see whether it reaches this one.
func (a *Agent) offerProbe(_ context.Context, _ Peer, c *nodelink.OfferProbe) (any, error) {
	if err := a.alone(); err != nil {
		return nil, err
	}
	at, err := a.cfg.Neighbours.Offer(c.To, c.Ticket, func(io.Writer) error { return nil })
	return nodelink.ImageOffer{Address: at}, err
}

// probeNode tells whether this node reaches another one.
func (a *Agent) probeNode(ctx context.Context, _ Peer, c *nodelink.ProbeNode) (any, error) {
	if err := a.alone(); err != nil {
		return nil, err
	}
	if err := a.cfg.Neighbours.Probe(ctx, c.Source); err != nil {
		return nodelink.ProbeReply{Why: errs.As(err).Message}, nil
	}
	return nodelink.ProbeReply{Direct: true}, nil
}
