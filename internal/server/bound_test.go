package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/event"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// events is a source of so many events and then silence.
type events int

// Next implements source.
func (n *events) Next(ctx context.Context) ([]event.Event, error) {
	if *n == 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	*n--
	return make([]event.Event, 1), nil
}

// A reader of events that takes nothing, or that answers no ping, is given up:
// nothing waits for it for ever.
func TestSilentReadersAreGivenUp(t *testing.T) {
	silent := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for name, c := range map[string]struct {
		events     events
		send, ping func(context.Context) error
	}{
		"TakesNothing":  {1, silent, func(context.Context) error { return nil }},
		"AnswersNoPing": {0, func(context.Context) error { return nil }, silent},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				err := follow(t.Context(), clock.System{}, &c.events, func(ctx context.Context, _ []byte, _ int64) error { return c.send(ctx) }, c.ping)
				if took := time.Since(began); err == nil || took > quiet+writeTimeout {
					t.Errorf("ended with %v after %v", err, took)
				}
			})
		})
	}
}

// A client that does not read an answer loses its connection, and the handler
// goes on.
func TestAnswersAreNotKeptForTheDeaf(t *testing.T) {
	ended := make(chan error, 1)
	g := &gate{meter: newMeter(clock.System{}, "test")}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.Copy(g.bounded(w, Route{patience: 50 * time.Millisecond}), endless{})
		ended <- err
	}))
	defer s.Close()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("an endless answer ended well")
		}
	case <-time.After(10 * time.Second):
		t.Error("the handler still writes to a client that does not read")
	}
}

type endless struct{}

// Read implements io.Reader.
func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A body that does not come in time is not waited for, and the next request on
// the connection is not cut short by it.
func TestBodiesComeInTime(t *testing.T) {
	g := &gate{
		meter: newMeter(clock.System{}, "test"), limits: newLimits(Limits{}, 4, clock.System{}, func(string) {}),
		patience: 200 * time.Millisecond, log: slog.New(slog.DiscardHandler),
		authenticate: func(*http.Request) (auth.Principal, error) { return auth.Principal{Role: auth.Administrator}, nil },
	}
	s := httptest.NewServer(g.wrap(handle(Route{Need: auth.Need{Resource: auth.Public}, patience: time.Hour}, func(context.Context, *Request, struct{}) (reply[none], error) {
		return reply[none]{Status: http.StatusNoContent}, nil
	})))
	defer s.Close()
	for body, want := range map[string]int{"{": http.StatusRequestEntityTooLarge, "{}": http.StatusNoContent} {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"+body); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%q: no answer: %v", body, err)
		} else if resp.StatusCode != want {
			t.Errorf("%q: answered %d, want %d", body, resp.StatusCode, want)
		}
		_ = c.Close()
	}
}

// A stream that arrives when nobody waits for it any more is closed, not kept.
func TestAbandonedStreamsAreClosed(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx context.Context
		ask error
	}{
		"ReplyLost": {t.Context(), errs.New(errs.NodeUnreachable, "lost")},
		"TooLate":   {gone, nil},
	} {
		t.Run(name, func(t *testing.T) {
			k := newTickets(clock.NewFake())
			var serve func(net.Conn)
			conn, err := k.dialBack(c.ctx, func(ticket string) error {
				serve, _ = k.take(ticket) // the agent dials, and its reply is on the way
				return c.ask
			})
			if err == nil {
				t.Fatalf("a stream came from nowhere: %v", conn)
			}
			here, there := net.Pipe()
			done := make(chan struct{})
			go func() { serve(here); close(done) }()
			_ = there.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := there.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("the stream is kept: %v", err)
			}
			<-done
			if len(k.open) != 0 {
				t.Errorf("tickets left: %d", len(k.open))
			}
		})
	}
}

func TestTickets(t *testing.T) {
	fake := clock.NewFake()
	k := newTickets(fake)
	ran := 0
	issue := func() string { return k.issue(func(net.Conn) { ran++ }) }
	once := issue()
	if serve, ok := k.take(once); !ok {
		t.Error("a ticket does not open")
	} else if serve(nil); ran != 1 {
		t.Error("a ticket opens something else")
	}
	if _, ok := k.take(once); ok {
		t.Error("a ticket opens twice")
	}
	for _, bad := range []string{"", "x", strings.Repeat("0", 64), once + "\n"} {
		if _, ok := k.take(bad); ok {
			t.Errorf("%q opens", bad)
		}
	}
	back := issue()
	if k.cancel(back); len(k.open) != 0 {
		t.Error("a ticket taken back is kept")
	}
	old := issue()
	fake.Advance(ticketLife + time.Second)
	if _, ok := k.take(old); ok {
		t.Error("an old ticket opens")
	}
	for range 100 {
		issue()
	}
	fake.StepWall(-24 * time.Hour)
	fake.Advance(ticketLife + time.Second)
	if last := issue(); len(k.open) != 1 || len(last) != 64 {
		t.Errorf("%d tickets are kept", len(k.open))
	}
}

// nodeConn is a TLS connection of a node with a proper certificate.
func nodeConn(t *testing.T) (server *tls.Conn, client net.Conn) {
	t.Helper()
	now := clock.System{}.Now()
	ca, err := pki.NewAuthority(id.New(), now)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := pki.NewKey()
	csr, _ := pki.Request(key)
	pem, _, err := ca.Node(id.New(), csr, now)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := pki.ParseCert(pem)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Server(nil, now)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	server = tls.Server(a, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool()})
	c := tls.Client(b, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: ca.Pool(), ServerName: pki.ServerName, Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	shaken := make(chan error, 1)
	go func() { shaken <- c.HandshakeContext(ctx) }()
	if err := errors.Join(server.HandshakeContext(ctx), <-shaken); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return server, c
}

// A node that sends no ticket but bytes without an end is not listened to.
func TestBulkReadsOneTicket(t *testing.T) {
	server, client := nodeConn(t)
	node, _, err := peerNode(server)
	if err != nil {
		t.Fatal(err)
	}
	a := &agents{tickets: newTickets(clock.NewFake()), clock: clock.System{}, log: slog.New(slog.DiscardHandler), sessions: map[id.ID]*session{node: {node: node}}}
	done := make(chan struct{})
	go func() { a.bulk(t.Context(), server); close(done) }()
	go func() { _, _ = client.Write([]byte(strings.Repeat("x", 4096))) }() // until the connection is closed
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("a ticket of 4 KiB is still being read")
	}
}

// A node that opens a session and says nothing does not keep it.
func TestSessionsBeginWithHello(t *testing.T) {
	server, client := nodeConn(t)
	fake := clock.NewFake()
	a := &agents{tickets: newTickets(fake), clock: fake, log: slog.New(slog.DiscardHandler), sessions: map[id.ID]*session{}}
	done := make(chan struct{})
	go func() { a.accept(t.Context(), server); close(done) }()
	go mute(t.Context(), client)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := fake.Waiters(ctx, 1); err != nil {
		t.Fatal("nobody waits for the hello")
	}
	fake.Advance(joinTimeout)
	select {
	case <-done:
	case <-ctx.Done():
		t.Error("the session is still open")
	}
}

// mute is an agent that speaks the protocol and calls nothing.
func mute(ctx context.Context, conn net.Conn) {
	_ = nodelink.ServeConn(ctx, conn, func(context.Context, string, []byte) (any, error) { return nil, nil },
		func(ctx context.Context, _ *nodelink.Uplink) { <-ctx.Done() })
}

// The place to resume from is where the reader was last, not where it began.
func TestResumePoint(t *testing.T) {
	for _, c := range []struct {
		query, header string
		want          int64
	}{{"after=5", "", 5}, {"after=5", "100", 100}, {"", "7", 7}, {"", "", -1}, {"after=-1", "", -2}, {"after=9223372036854775808", "", -2}, {"after=1e3", "", -2}} {
		r := &Request{Request: &http.Request{URL: &url.URL{RawQuery: c.query}, Header: http.Header{"Last-Event-Id": {c.header}}}}
		got, err := resumePoint(r)
		if c.want == -2 {
			if !errs.Is(err, errs.InvalidCursor) {
				t.Errorf("%q: %v", c.query, err)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%q and %q: %d %v, want %d", c.query, c.header, got, err, c.want)
		}
	}
}

func TestSeconds(t *testing.T) {
	for n, want := range map[int64]bool{0: true, 3600: true, -1: false, 18446744074: false, -18446744073: false, 1 << 62: false, -1 << 63: false} {
		if d := seconds(n); (d >= 0 && d <= time.Hour) != want {
			t.Errorf("%d s came out as %v", n, d)
		}
	}
}

// A request that the end of its server cuts off is told so, and not that something
// is wrong.
func TestStoppingServerSaysSo(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	g := &gate{
		meter: newMeter(clock.System{}, "test"), limits: newLimits(Limits{}, 4, clock.System{}, func(string) {}),
		log:          slog.New(slog.DiscardHandler),
		authenticate: func(*http.Request) (auth.Principal, error) { return auth.Principal{Role: auth.Administrator}, nil },
	}
	s := httptest.NewUnstartedServer(g.wrap(handle(Route{Need: auth.Need{Resource: auth.Public}}, func(ctx context.Context, _ *Request, _ struct{}) (reply[none], error) {
		stop()
		<-ctx.Done()
		return reply[none]{}, ctx.Err()
	})))
	s.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	s.Start()
	defer s.Close()
	resp, err := http.Post(s.URL, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var p api.Error
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || p.Code != "db_unavailable" || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, %+v, %v", resp.StatusCode, p, err)
	}
}
