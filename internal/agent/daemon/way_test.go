package daemon

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// post joins nodes as a server does: what it carries goes over connections of its own.
type post struct {
	t     *testing.T
	nodes map[id.ID]*neighbours
	// asked counts, and down refuses.
	asked int
	down  bool
	ends  map[string]net.Conn
}

// Call implements agent.Up: the other node is let in by its end, and the caller gets a
// ticket for its own.
func (p *post) Call(ctx context.Context, _ string, req, reply any) error {
	p.asked++
	if p.down {
		return errs.New(errs.NodeUnreachable, "the server is gone")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	far, err := l.Accept()
	if err != nil {
		return err
	}
	p.ends["near"], p.ends["far"] = near, far
	reply.(*nodelink.RelayReply).Ticket = "near"
	ask := req.(nodelink.Relay)
	return p.nodes[ask.Peer].Admit(ctx, p, ask.Address, "far")
}

// Bulk implements agent.Peer.
func (p *post) Bulk(_ context.Context, ticket string) (agent.Stream, error) {
	return p.ends[ticket].(*net.TCPConn), nil
}

func newPost(t *testing.T, nodes ...*neighbours) *post {
	p := &post{t: t, nodes: map[id.ID]*neighbours{}, ends: map[string]net.Conn{}}
	for _, n := range nodes {
		p.nodes[n.who.state.Node] = n
		t.Cleanup(n.serves(&server{up: p, Peer: p, epoch: 1}))
	}
	return p
}

// What nodes offer, and their doors, are reached by way of a server where they are not
// reached otherwise: proved by the same certificates and tickets. Where they are, no server
// is asked.
func TestNodesAreRelayed(t *testing.T) {
	for name, c := range map[string]struct {
		fixed   string
		relayed bool
	}{"Direct": {"", false}, "Relayed": {onlyRelayed, true}} {
		t.Run(name, func(t *testing.T) {
			ca := newAuthority(t)
			a, b := newNeighbour(t, ca), newNeighbour(t, ca)
			a.fixed = c.fixed
			p := newPost(t, a, b)
			s := offer(t, a, b, []byte("disk"))
			if got, err := read(t, b, s); err != nil || string(got) != "disk" {
				t.Fatalf("%q %v", got, err)
			}
			if b.Relayed(s.Address) != c.relayed || (p.asked > 0) != c.relayed {
				t.Errorf("relayed: %v, and servers were asked %d times", b.Relayed(s.Address), p.asked)
			}
			address, shut, err := a.Land(b.who.state.Node, "t", func(string) bool { return false }, func(_ context.Context, name string, conn io.ReadWriteCloser) {
				_, _ = io.WriteString(conn, name+":")
				_, _ = io.Copy(conn, conn)
			})
			if err != nil {
				t.Fatal(err)
			}
			defer shut()
			conn, err := b.Reach(t.Context(), agent.Way{Node: a.who.state.Node, Address: address, Ticket: "t", Name: "memory"})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			content := bytes.Repeat([]byte("x"), 1<<20)
			go func() {
				_, _ = conn.Write(content)
				_ = conn.(interface{ CloseWrite() error }).CloseWrite()
			}()
			if got, err := io.ReadAll(conn); err != nil || string(got) != "memory:"+string(content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if _, err := newNeighbour(t, ca).Reach(t.Context(), agent.Way{Node: a.who.state.Node, Address: address, Ticket: "t", Name: "memory"}); err == nil && c.relayed {
				t.Error("a node without a server got to a door without a port")
			}
		})
	}
}

// A relay gives nobody more than the door does: who comes by it has to be the one node, with
// the ticket.
func TestRelayedStrangersAreRefused(t *testing.T) {
	ca := newAuthority(t)
	a, b, stranger := newNeighbour(t, ca), newNeighbour(t, ca), newNeighbour(t, ca)
	a.fixed = onlyRelayed
	newPost(t, a, b, stranger)
	s := offer(t, a, b, []byte("secret"))
	if got, err := read(t, stranger, s); len(got) > 0 {
		t.Errorf("another node read %q, %v", got, err)
	}
	wrong := s
	wrong.Ticket = "another"
	if got, err := read(t, b, wrong); len(got) > 0 {
		t.Errorf("with another ticket: %q %v", got, err)
	}
	if got, err := read(t, b, s); err != nil || string(got) != "secret" {
		t.Errorf("the one it is for: %q %v", got, err)
	}
}

// A server that does not relay is not asked again at once; another one takes its place, and
// what only the node itself may fetch is not relayed.
func TestRelayingServersFail(t *testing.T) {
	ca := newAuthority(t)
	a, b := newNeighbour(t, ca), newNeighbour(t, ca)
	a.fixed = onlyRelayed
	down := newPost(t, a, b)
	down.down = true
	s := offer(t, a, b, []byte("x"))
	for range 3 {
		if _, err := read(t, b, s); !errs.Is(err, errs.NodeUnreachable) {
			t.Fatal(err)
		}
	}
	if down.asked != 1 {
		t.Errorf("asked %d times within a moment", down.asked)
	}
	up := newPost(t, a, b)
	b.ways = nil // a moment later
	direct := s
	direct.Direct = true
	if _, err := read(t, b, direct); err == nil || up.asked > 0 {
		t.Errorf("what is not worth a relay: %v, asked %d times", err, up.asked)
	}
	if got, err := read(t, b, s); err != nil || string(got) != "x" {
		t.Errorf("%q %v", got, err)
	}
	if err := b.Probe(t.Context(), offer(t, a, b, nil)); err == nil {
		t.Error("a probe reached a node that has no port")
	}
	a.fixed = ""
	if err := b.Probe(t.Context(), offer(t, a, b, nil)); err != nil {
		t.Error(err)
	}
	b.fixed = noPeers
	if _, err := read(t, b, offer(t, a, b, nil)); !errs.Is(err, errs.NodeUnreachable) && !errs.Is(err, errs.Unsupported) {
		t.Errorf("a node that speaks with no other: %v", err)
	}
}
