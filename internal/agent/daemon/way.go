package daemon

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Bounds of a way to another node.
const (
	// directTime is how long another node may take to answer by itself.
	directTime = 2 * time.Second
	// relayTime is how long one server may take to fetch the other node.
	relayTime = 5 * time.Second
	// relayPause is how long after servers could not relay to an address they are not asked
	// again: what is tried many times a second keeps no server busy.
	relayPause = time.Second
	// maxWays bounds the addresses of which the way is remembered.
	maxWays = 256
)

// server is one that this node has a session with.
type server struct {
	up agent.Up
	agent.Peer
	epoch gen.NodeEpoch
}

// serves has a server count as one that may relay, until the function that it gives is
// called.
func (n *neighbours) serves(s *server) (gone func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.servers == nil {
		n.servers = map[*server]bool{}
	}
	n.servers[s] = true
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.servers, s)
	}
}

// way is what is known of the way to an address.
type way struct {
	// relayed: the other node was not reached there, and a server did it.
	relayed bool
	// not is until when no server is asked.
	not time.Duration
}

func (n *neighbours) wayTo(address string) way {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ways[address]
}

func (n *neighbours) remember(address string, w way) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ways == nil || len(n.ways) >= maxWays {
		n.ways = map[string]way{} // each is of one move: what is forgotten is found out again
	}
	n.ways[address] = w
}

// Relayed implements agent.Neighbours.
func (n *neighbours) Relayed(address string) bool { return n.wayTo(address).relayed }

// dial opens a connection to where another node lets this one in: by itself, or by way of a
// server, whichever was found to work for that address before. Nothing is said on it yet.
func (n *neighbours) dial(ctx context.Context, peer id.ID, address, ticket string) (net.Conn, error) {
	if n.Relayed(address) {
		if c, err := n.relay(ctx, peer, address, ticket); err == nil {
			return c, nil
		}
	}
	c, err := n.direct(ctx, address)
	if err == nil || ctx.Err() != nil || n.fixed == noPeers {
		return c, err
	}
	c, why := n.relay(ctx, peer, address, ticket)
	if why == nil {
		n.log.Info("another node is not reached, and a server relays to it", "node", peer, "address", errs.Clip(address))
		return c, nil
	}
	return nil, errs.New(errs.NodeUnreachable, "the node at %s cannot be reached, and no server relays to it: %s", errs.Clip(address), errs.As(why).Message).Because(errors.Join(err, why))
}

// direct dials another node.
func (n *neighbours) direct(ctx context.Context, address string) (net.Conn, error) {
	if n.fixed == noPeers {
		return nil, errs.New(errs.Unsupported, "this node speaks with no other node (--peer-address off)")
	}
	if n.fixed == onlyRelayed || portless(address) {
		return nil, errs.New(errs.NodeUnreachable, "one of the two nodes speaks with others by way of servers alone (--peer-address relay)")
	}
	ctx, cancel := context.WithTimeout(ctx, directTime)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, errs.New(errs.NodeUnreachable, "the node at %s cannot be reached", errs.Clip(address)).Because(err)
	}
	keepAlive(c)
	return c, nil
}

// relay has one of the servers fetch the other node. The order is by chance, so that they
// share the load, and each is asked in turn.
func (n *neighbours) relay(ctx context.Context, peer id.ID, address, ticket string) (net.Conn, error) {
	now := n.who.clock.Boot()
	if n.wayTo(address).not > now {
		return nil, errs.New(errs.NodeUnreachable, "it was tried a moment ago")
	}
	n.mu.Lock()
	servers := slices.Collect(maps.Keys(n.servers))
	n.mu.Unlock()
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] }) //nolint:gosec // which server is asked first is no secret: each gives the same answer
	last := error(errs.New(errs.NodeUnreachable, "no server is reached from here"))
	for _, s := range servers {
		c, err := s.relay(ctx, nodelink.Relay{NodeEpoch: s.epoch, Peer: peer, Address: address, Ticket: ticket})
		if err == nil {
			n.remember(address, way{relayed: true})
			return c, nil
		}
		last = err
	}
	n.remember(address, way{relayed: n.Relayed(address), not: now + relayPause})
	return nil, last
}

func (s *server) relay(ctx context.Context, ask nodelink.Relay) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, relayTime)
	defer cancel()
	var r nodelink.RelayReply
	if err := s.up.Call(ctx, nodelink.MethodRelay, ask, &r); err != nil {
		return nil, err
	}
	stream, err := s.Bulk(ctx, r.Ticket)
	if err != nil {
		return nil, err
	}
	c, ok := stream.(net.Conn)
	if !ok {
		_ = stream.Close()
		return nil, errs.New(errs.Internal, "a bulk connection is not one of the network")
	}
	return c, nil
}

// Probe implements agent.Neighbours.
func (n *neighbours) Probe(ctx context.Context, s nodelink.ImageSource) error {
	c, err := n.direct(ctx, s.Address)
	if err != nil {
		return err
	}
	return n.readFrom(ctx, c, s, discard{})
}

type discard struct{}

// Write implements io.Writer.
func (discard) Write(p []byte) (int, error) { return len(p), nil }
