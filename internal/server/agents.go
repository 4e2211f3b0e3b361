package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/engine/admit"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// agents holds the sessions that agents opened with this server.
type agents struct {
	control *control.Service
	tickets *tickets
	clock   clock.Clock
	log     *slog.Logger
	limits  *limits
	denials *denials
	relays  *relays
	// calls are what each node may make
	calls *admit.Buckets[id.ID]

	// life ends when the server begins to stop
	life context.Context //nolint:containedctx // it ends with the server: sessions and quarantines outlive the connection or request that began them

	mu       sync.Mutex
	sessions map[id.ID]*session
	looking  map[id.ID]bool
}

// session is one agent's connection. It counts from its hello on.
type session struct {
	node    id.ID
	keyHash []byte
	link    *nodelink.Session
	// linked is closed once link is set
	linked chan struct{}
	// epoch is guarded by agents.mu
	epoch gen.NodeEpoch
	// parting: it ends in a moment
	parting sync.Once
}

// joinTimeout bounds a stranger's connection.
const joinTimeout = 15 * time.Second

// accept runs a session until it ends.
func (a *agents) accept(ctx context.Context, conn *tls.Conn) {
	node, hash, err := peerNode(conn)
	if err != nil {
		a.log.Warn("an agent's certificate was refused", "peer", conn.RemoteAddr(), "err", err)
		return
	}
	s := &session{node: node, keyHash: hash, linked: make(chan struct{})}
	link, err := nodelink.Accept(ctx, conn, func(ctx context.Context, method string, body []byte) (any, error) {
		<-s.linked
		return a.uplink(ctx, s, method, body)
	})
	if err != nil {
		a.log.Warn("an agent's session failed at once", "node", node, "err", err)
		return
	}
	s.link = link
	close(s.linked)
	defer a.forget(s)
	defer func() {
		<-link.Done()
		if link.TooLarge() {
			_ = a.quarantine(s, "it sent a message larger than any agent does") // there is nobody left to tell
		}
	}()
	defer link.Close()
	late, free := a.clock.After(joinTimeout)
	defer free()
	ended, stop := a.expiry(ctx, conn)
	defer stop()
	for {
		select {
		case <-link.Done():
			return
		case <-ctx.Done():
			return
		case <-ended:
			a.log.Info("a session ended with the certificate it was opened with; the agent opens another", "node", node)
			return
		case <-late:
			if !a.greeted(s) {
				a.log.Warn("an agent opened a session and said no hello", "node", node, "peer", conn.RemoteAddr())
				return
			}
		}
	}
}

// expiry is closed when the certificate that opened a connection has expired. It is
// counted in time that passes, from what was left at the opening: a step of the wall
// clock ends no session and prolongs none.
func (a *agents) expiry(ctx context.Context, conn *tls.Conn) (<-chan struct{}, context.CancelFunc) {
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	at := a.clock.Boot() + conn.ConnectionState().PeerCertificates[0].NotAfter.Sub(a.clock.Now())
	go func() {
		for left := at - a.clock.Boot(); left > 0; left = at - a.clock.Boot() {
			if a.clock.Sleep(ctx, min(left, expiryLook)) != nil {
				return
			}
		}
		close(ended)
	}()
	return ended, stop
}

// expiryLook is how often a session's age is looked at: timers stand still while a
// machine sleeps.
const expiryLook = time.Hour

func (a *agents) greeted(s *session) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return s.epoch != 0
}

func peerNode(conn *tls.Conn) (id.ID, []byte, error) {
	certs := conn.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return id.Nil, nil, errs.New(errs.Unauthenticated, "no client certificate")
	}
	return pki.NodeOf(certs[0])
}

// uplink answers an agent's calls. Until its hello was taken, nothing else is.
func (a *agents) uplink(ctx context.Context, s *session, method string, body []byte) (any, error) {
	if _, ok := a.calls.Take(s.node, a.clock.Boot()); !ok {
		return nil, a.quarantine(s, "it called more often than any agent does")
	}
	switch method {
	case nodelink.MethodHello:
		return a.hello(ctx, s, body)
	case nodelink.MethodHeartbeat:
		var b nodelink.Heartbeat
		if err := a.current(s, body, &b, &b.NodeEpoch); err != nil {
			return nil, err
		}
		return a.control.Beat(s.node, b), nil
	case nodelink.MethodReports:
		var r nodelink.Reports
		if err := a.current(s, body, &r, &r.NodeEpoch); err != nil {
			return nil, err
		}
		if len(r.Items) > mostReports {
			return nil, a.quarantine(s, fmt.Sprintf("it sent %d reports at once, and agents send %d", len(r.Items), nodelink.MostReports))
		}
		return a.control.Reports(ctx, s.node, r.NodeEpoch, r.Items)
	case nodelink.MethodPools:
		var r nodelink.Pools
		if err := a.current(s, body, &r, &r.NodeEpoch); err != nil {
			return nil, err
		}
		return nodelink.Done{}, a.control.NodePools(ctx, s.node, r.NodeEpoch, r.Items)
	case nodelink.MethodSwap:
		var r nodelink.Swap
		if err := a.current(s, body, &r, &r.NodeEpoch); err != nil {
			return nil, err
		}
		return a.control.SwapVM(ctx, s.node, r)
	case nodelink.MethodRelay:
		var r nodelink.Relay
		if err := a.current(s, body, &r, &r.NodeEpoch); err != nil {
			return nil, err
		}
		return a.relay(ctx, s.node, r)
	default:
		return nil, errs.New(errs.Unsupported, "this server does not know the call %q", errs.Clip(method))
	}
}

// current decodes a call and checks that it comes from the incarnation whose
// hello this session carries.
func (a *agents) current(s *session, body []byte, into any, epoch *gen.NodeEpoch) error {
	if err := json.Unmarshal(body, into); err != nil {
		return errs.New(errs.InvalidJSON, "the call is not understood").Because(err)
	}
	if err := a.control.Holds().Quarantined(s.node); err != nil {
		a.part(s)
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.epoch == 0 || *epoch != s.epoch || a.sessions[s.node] != s {
		return errs.New(errs.StaleEpoch, "this session is not the node's current one: dial again")
	}
	return nil
}

func (a *agents) hello(ctx context.Context, s *session, body []byte) (any, error) {
	var h nodelink.Hello
	if err := json.Unmarshal(body, &h); err != nil {
		return nil, errs.New(errs.InvalidJSON, "the call is not understood").Because(err)
	}
	if h.Node != s.node {
		return nil, a.quarantine(s, fmt.Sprintf("it called itself node %s", h.Node))
	}
	w, err := a.control.Hello(ctx, h, s.keyHash)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	old := a.sessions[s.node]
	if old != nil && old.epoch > h.NodeEpoch {
		a.mu.Unlock()
		return nil, errs.New(errs.StaleEpoch, "a newer incarnation of this node has a session")
	}
	s.epoch = h.NodeEpoch
	a.sessions[s.node] = s
	a.mu.Unlock()
	if old != nil && old != s {
		old.link.Close()
	}
	a.look(s.node)
	return w, nil
}

// What an agent does not do, besides calling more than Limits.NodeRate: it has one batch of reports and a few other calls under
// way at a time, each of which waits for the database.
const (
	// callsBurst is how many calls it may make at once, per one per second.
	callsBurst = 10
	// mostReports is more than any version of the agent sends at once.
	mostReports = 10 * nodelink.MostReports
	// mostNodes have a count of their own.
	mostNodes = 1 << 16
)

// quarantine has no server speak with a node any more, for what it did, and ends its
// session; the error tells it.
func (a *agents) quarantine(s *session, what string) error {
	a.part(s)
	if err := a.control.Holds().Quarantined(s.node); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(a.life, lookTimeout)
	defer cancel()
	if err := a.control.Quarantine(ctx, s.node, what); err != nil && ctx.Err() == nil {
		a.log.Error("a node that misbehaves cannot be put into quarantine", "node", s.node, "why", what, "err", err)
	}
	return errs.New(errs.NodeQuarantined, "this node is in quarantine: %s", what)
}

// partAfter is how long an answer may take to leave before its session ends.
const partAfter = 200 * time.Millisecond

// part ends a session once its agent was told why.
func (a *agents) part(s *session) {
	s.parting.Do(func() {
		go func() {
			defer s.link.Close()
			_ = a.clock.Sleep(a.life, partAfter)
		}()
	})
}

// lookTimeout bounds one look at a node.
const lookTimeout = time.Minute

// look compares what a node holds with the database, unless that is under way.
func (a *agents) look(node id.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.looking == nil {
		a.looking = map[id.ID]bool{}
	}
	if a.looking[node] {
		return
	}
	a.looking[node] = true
	go func() {
		ctx, cancel := context.WithTimeout(a.life, lookTimeout)
		defer cancel()
		err := a.control.Look(ctx, node)
		if err != nil && ctx.Err() == nil && !errs.Is(err, errs.NodeUnreachable) {
			a.log.Warn("what a node holds cannot be compared with the database", "node", node, "err", err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.looking, node)
	}()
}

func (a *agents) forget(s *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sessions[s.node] == s {
		delete(a.sessions, s.node)
	}
}

// drop ends a node's session, because the node was removed.
func (a *agents) drop(node id.ID) {
	a.mu.Lock()
	s := a.sessions[node]
	a.mu.Unlock()
	if s != nil {
		s.link.Close()
	}
}

// has tells whether a node has a session here.
func (a *agents) has(node id.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sessions[node] != nil
}

// connected lists the nodes with a session here.
func (a *agents) connected() []id.ID {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]id.ID, 0, len(a.sessions))
	for n := range a.sessions {
		out = append(out, n)
	}
	return out
}

// Call implements flows.Nodes.
func (a *agents) Call(ctx context.Context, node id.ID, cmd nodelink.Command, reply any) error {
	a.mu.Lock()
	s := a.sessions[node]
	if f, ok := cmd.(nodelink.Fenced); ok && s != nil {
		f.Head().NodeEpoch = s.epoch
	}
	a.mu.Unlock()
	if s == nil {
		return errs.New(errs.NodeUnreachable, "the node has no session with this server")
	}
	return s.link.Call(ctx, cmd, reply)
}

// bulk hands a dialled-back connection to whoever waits for its ticket, and
// returns when that is done with it.
func (a *agents) bulk(ctx context.Context, conn *tls.Conn) {
	node, _, err := peerNode(conn)
	if err != nil || !a.has(node) {
		return // a node that was removed has no session, whatever its certificate says
	}
	_ = conn.SetReadDeadline(clock.Deadline(joinTimeout))
	r := bufio.NewReaderSize(conn, 128)
	line, err := r.ReadSlice('\n') // a ticket fits; what does not is none
	if err != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	serve, ok := a.tickets.take(strings.TrimSuffix(string(line), "\n"))
	if !ok {
		return
	}
	b := &bulkConn{Conn: conn, node: node, r: r, closed: make(chan struct{})}
	serve(b)
	select {
	case <-b.closed:
	case <-ctx.Done():
	}
}

// bulkConn gives back what was buffered behind the ticket, and tells when it is
// closed.
type bulkConn struct {
	*tls.Conn
	node   id.ID
	r      *bufio.Reader
	once   sync.Once
	closed chan struct{}
}

// Read implements net.Conn.
func (b *bulkConn) Read(p []byte) (int, error) { return b.r.Read(p) }

// Close implements net.Conn.
func (b *bulkConn) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Conn.Close()
}

// join answers one stranger with a token.
func (a *agents) join(ctx context.Context, conn *tls.Conn) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	_ = conn.SetDeadline(clock.Deadline(joinTimeout))
	var req nodelink.JoinRequest
	err := json.NewDecoder(io.LimitReader(conn, maxBody)).Decode(&req)
	if err != nil {
		return
	}
	out, err := a.admitted(ctx, req, conn.RemoteAddr().String())
	if err != nil {
		a.log.Warn("a node was refused", "name", errs.Clip(req.Name), "peer", conn.RemoteAddr(), "err", err)
		out = nodelink.JoinReply{Error: nodelink.NewWireError(err)}
	}
	_ = json.NewEncoder(conn).Encode(out) //nolint:errchkjson // a stranger that is gone needs no answer, and the connection is closed either way
}

// admitted lets a stranger join within the limits of strangers: a wrong token
// counts as a bad credential.
func (a *agents) admitted(ctx context.Context, req nodelink.JoinRequest, origin string) (nodelink.JoinReply, error) {
	from := addressOf(origin)
	who := control.Caller{}
	who.Name, who.Role, who.Origin = "anonymous", auth.Anonymous, origin
	leave, err := a.limits.knock(ctx, from, false)
	if err != nil {
		a.denials.count(who, actionJoin)
		return nodelink.JoinReply{}, err
	}
	defer leave()
	out, err := a.control.Join(ctx, req, origin)
	if refusedCredential(err) {
		a.limits.failed(from)
		a.denials.note(ctx, who, actionJoin, req.Name)
	}
	return out, err
}

// actionJoin is what the audit log calls a host that joins.
const actionJoin = "node.join"

// renew answers a node whose certificate nears its end, or is past it.
func (a *agents) renew(ctx context.Context, conn *tls.Conn) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	_ = conn.SetDeadline(clock.Deadline(joinTimeout))
	certs := conn.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return
	}
	out, err := a.control.Renew(ctx, certs[0], conn.RemoteAddr().String())
	if err != nil {
		a.log.Warn("a node's certificate was not renewed", "peer", conn.RemoteAddr(), "err", err)
		out = nodelink.RenewReply{Error: nodelink.NewWireError(err)}
	}
	_ = json.NewEncoder(conn).Encode(out) //nolint:errchkjson // an agent that is gone asks again, and the connection is closed either way
}
