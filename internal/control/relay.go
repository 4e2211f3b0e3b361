package control

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// MayRelay refuses, with errs.Forbidden, to join a node with another's door for a ticket that
// no job under way has given the two.
func (s *Service) MayRelay(ctx context.Context, from, to id.ID, ticket string) error {
	if err := s.holds.On(&to); err != nil {
		return err
	}
	ok, err := s.cfg.Store.RelayGranted(ctx, ticket, from, to)
	if err == nil && !ok {
		err = errs.New(errs.Forbidden, "nothing is under way for which these two nodes are joined")
	}
	return err
}

// probeTime bounds the look whether two nodes reach each other.
const probeTime = 8 * time.Second

// mostProbed bounds how many of the nodes that suit are looked at.
const mostProbed = 4

// reach sees whether the nodes of a planned migration reach each other, and notes it in the
// plan: a cold one is read by its target, and one that executes is sent by its source besides.
// Of the nodes that come next in order it tells which one needs no relay, if the first does.
func (s *Service) reach(ctx context.Context, p migration.Plan) migration.Plan {
	if len(p.Ranked) == 0 {
		return p
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	ways := make([][]migration.Way, min(len(p.Ranked), mostProbed))
	var all sync.WaitGroup
	for i := range ways {
		to := migration.Place{Node: p.Ranked[i].Node, Name: p.Ranked[i].Name}
		ways[i] = []migration.Way{{From: to, To: p.Source}}
		if p.Kind.Executing() {
			ways[i] = append(ways[i], migration.Way{From: p.Source, To: to})
		}
		for n := range ways[i] {
			all.Go(func() { s.probe(ctx, &ways[i][n]) })
		}
	}
	all.Wait()
	return p.WithWays(ways[0], ways[1:]...)
}

// probe has the one node of a way dial the other.
func (s *Service) probe(ctx context.Context, w *migration.Way) {
	from := nodelink.ImageSource{Node: w.To.Node, Ticket: rand.Text()}
	var offer nodelink.ImageOffer
	if err := s.cfg.Nodes.Call(ctx, w.To.Node, &nodelink.OfferProbe{To: w.From.Node, Ticket: from.Ticket}, &offer); err != nil {
		return // an agent before this one, say
	}
	from.Address = offer.Address
	var reply nodelink.ProbeReply
	if err := s.cfg.Nodes.Call(ctx, w.From.Node, &nodelink.ProbeNode{Source: from}, &reply); err != nil {
		return
	}
	w.Known, w.Direct, w.Why = true, reply.Direct, nodelink.Text(reply.Why)
}
