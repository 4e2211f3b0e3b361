package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// bulk opens a bulk connection with a ticket.
func (g *rogue) bulk(ticket string) *tls.Conn {
	g.t.Helper()
	conn, err := tls.Dial("tcp", g.r.info.Address, &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{nodelink.ALPNBulk}, Certificates: []tls.Certificate{g.cert},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(clock.Deadline(20 * time.Second))
	if _, err := io.WriteString(conn, ticket+"\n"); err != nil {
		g.t.Fatal(err)
	}
	return conn
}

// grant puts on record that a node may be joined with another by a ticket, for a job under
// way, and gives the job.
func grant(t *testing.T, db *storetest.DB, ticket string, from, to id.ID) id.ID {
	t.Helper()
	job, hash := id.New(), sha256.Sum256([]byte(ticket))
	_, err := db.Owner.Exec(t.Context(), `INSERT INTO jobs (id, kind, target_kind, target_id, target_name, params, created_by, wake_at)
		VALUES ($1, 'vm.migrate', 'vm', $1, 'web', '{}', 'test', now() + interval '1 hour')`, job)
	if err == nil {
		_, err = db.Owner.Exec(t.Context(), "INSERT INTO relay_grants (ticket_hash, from_node_id, to_node_id, job_id) VALUES ($1, $2, $3, $4)", hash[:], from, to, job)
	}
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// A server joins two nodes for a ticket on record, byte for byte and with the end of each
// direction; for nothing else, for nobody else, for no more than it is to, and not when the
// job has ended.
func TestRelaysBetweenNodes(t *testing.T) {
	db := storetest.New(t)
	r := startAs(t, db, t.TempDir(), Options{Clock: clock.System{}, Listen: "127.0.0.1:0", Limits: Limits{Relays: 1}})
	a, b, c := newRogue(t, r, "a"), newRogue(t, r, "b"), newRogue(t, r, "c")
	b.admits = make(chan nodelink.AdmitRelay, 1)
	up, _ := a.session()
	far, _ := b.session()
	stranger, _ := c.session()
	for _, g := range []struct {
		*rogue
		up *nodelink.Uplink
	}{{a, up}, {b, far}, {c, stranger}} {
		if err := g.hello(g.up, 1); err != nil {
			t.Fatal(err)
		}
	}
	job := grant(t, db, "ticket", a.id, b.id)
	ask := nodelink.Relay{NodeEpoch: 1, Peer: b.id, Address: "there", Ticket: "ticket"}
	var reply nodelink.RelayReply
	for name, refused := range map[string]struct {
		up  *nodelink.Uplink
		ask nodelink.Relay
	}{
		"OtherTicket":  {up, nodelink.Relay{NodeEpoch: 1, Peer: b.id, Address: "there", Ticket: "another"}},
		"OtherPeer":    {up, nodelink.Relay{NodeEpoch: 1, Peer: c.id, Address: "there", Ticket: "ticket"}},
		"OtherWay":     {far, nodelink.Relay{NodeEpoch: 1, Peer: a.id, Address: "there", Ticket: "ticket"}},
		"SomebodyElse": {stranger, ask},
	} {
		if err := refused.up.Call(t.Context(), nodelink.MethodRelay, refused.ask, &reply); !errs.Is(err, errs.Forbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
	come := make(chan *tls.Conn, 1)
	go func() {
		for admit := range b.admits {
			if admit.From != a.id || admit.Address != "there" {
				t.Errorf("asked to admit %+v", admit)
			}
			come <- b.bulk(admit.Ticket)
		}
	}()
	defer close(b.admits)
	if err := up.Call(t.Context(), nodelink.MethodRelay, ask, &reply); err != nil {
		t.Fatal(err)
	}
	if err := up.Call(t.Context(), nodelink.MethodRelay, ask, &nodelink.RelayReply{}); !errs.Is(err, errs.Conflict) {
		t.Errorf("one more than it is to join: %v", err)
	}
	near, other := a.bulk(reply.Ticket), <-come
	content := bytes.Repeat([]byte("memory"), 1<<19)
	go func() {
		_, _ = near.Write(content)
		_ = near.CloseWrite()
	}()
	if got, err := io.ReadAll(other); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%d bytes of %d came: %v", len(got), len(content), err)
	}
	// the other direction is open still
	if _, err := io.WriteString(other, "verdict"); err != nil {
		t.Error(err)
	}
	_ = other.CloseWrite()
	if got, err := io.ReadAll(near); err != nil || string(got) != "verdict" {
		t.Errorf("after one direction had ended, %q came by the other: %v", got, err)
	}
	r.until("the place is free again", 10*time.Second, func() bool {
		return up.Call(t.Context(), nodelink.MethodRelay, ask, &reply) == nil
	})
	if got, err := io.ReadAll(c.bulk(reply.Ticket)); len(got) > 0 {
		t.Errorf("another node used the ticket: %q %v", got, err)
	}
	if _, err := db.Owner.Exec(t.Context(), "UPDATE jobs SET state = 'succeeded', finished_at = now() WHERE id = $1", job); err != nil {
		t.Fatal(err)
	}
	if err := up.Call(t.Context(), nodelink.MethodRelay, ask, &reply); !errs.Is(err, errs.Forbidden) {
		t.Errorf("after the job has ended: %v", err)
	}
}

// tcpPair gives the two ends of a connection.
func tcpPair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err == nil {
		far, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near, far
}

// Who does not read holds its sender up, is kept little of, and is given up after a while;
// the other end hears of it.
func TestRelayGivesUpWhoDoesNotRead(t *testing.T) {
	r := newRelays(Limits{Relays: 1}, clock.System{})
	r.stalled = 200 * time.Millisecond
	sender, in := tcpPair(t)
	out, _ := tcpPair(t) // nobody reads at its other end
	for _, c := range []net.Conn{in, out} {
		_ = c.(*net.TCPConn).SetReadBuffer(relayPiece)
		_ = c.(*net.TCPConn).SetWriteBuffer(relayPiece)
	}
	joined := make(chan struct{})
	go func() { defer close(joined); r.join(t.Context(), in, out) }()
	_ = sender.SetDeadline(clock.Deadline(20 * time.Second))
	sent, err := io.Copy(sender, io.LimitReader(unending{}, 1<<30))
	if err == nil || sent > 256<<20 {
		t.Errorf("%d bytes were taken of a sender whose reader takes none: %v", sent, err)
	}
	select {
	case <-joined:
	case <-time.After(10 * time.Second):
		t.Error("they are joined still")
	}
}

type unending struct{}

// Read implements io.Reader.
func (unending) Read(p []byte) (int, error) { return len(p), nil }

// When one end goes, the other is closed, and so is everything when the server stops.
func TestRelayEndsWithItsEnds(t *testing.T) {
	for name, end := range map[string]func(stop func(), near net.Conn){
		"OneEnd": func(_ func(), near net.Conn) { _ = near.(*net.TCPConn).SetLinger(0); _ = near.Close() },
		"Stop":   func(stop func(), _ net.Conn) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelays(Limits{Relays: 1}, clock.System{})
			near, a := tcpPair(t)
			far, b := tcpPair(t)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			go r.join(ctx, a, b)
			if _, err := io.WriteString(near, "x"); err != nil {
				t.Fatal(err)
			}
			_ = far.SetDeadline(clock.Deadline(10 * time.Second))
			if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			end(stop, near)
			if _, err := far.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the other end goes on: %v", err)
			}
		})
	}
}

// All relays together keep to the rate, however many there are.
func TestRelaysShareARate(t *testing.T) {
	fake := clock.NewFake()
	p := &pace{rate: 1000, clock: fake}
	began := fake.Boot()
	for range 4 {
		done := make(chan error, 1)
		go func() { done <- p.take(t.Context(), 500) }()
		for {
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
			default:
				fake.Advance(time.Millisecond)
				continue
			}
			break
		}
	}
	if took := fake.Boot() - began; took < 1500*time.Millisecond {
		t.Errorf("2000 bytes at 1000 per second took %v, and the last 500 are to begin after 1.5 s", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.take(ctx, 500); err == nil {
		t.Error("who went away waits")
	}
}
