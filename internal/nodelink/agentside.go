package nodelink

import (
	"context"
	"encoding/json"
	"net"
	"sync"

	"google.golang.org/grpc"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Uplink is the agent's way up on one session.
type Uplink struct {
	// sending lets one message go out at a time; a peer that reads slowly holds
	// nobody up but those who send
	sending sync.Mutex
	stream  grpc.ServerStream

	mu      sync.Mutex
	next    uint64
	pending map[uint64]chan *frame
	done    chan struct{}
}

// ServeConn runs the agent's side of a session on a connection the agent opened
// and blocks until it ends. Commands go to handle; once the server has opened
// the uplink, up is called with it, in a goroutine of its own whose context
// ends with the session. The error of a server that holds the node's certificate for
// expired is ErrExpired.
func ServeConn(ctx context.Context, conn net.Conn, handle Handler, up func(context.Context, *Uplink)) error {
	srv := grpcServer()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	side := &agentSide{ctx: ctx, handle: handle, up: up, opened: make(chan struct{})}
	srv.RegisterService(&serviceDesc, side)
	l := listenOn(conn)
	stop := context.AfterFunc(ctx, func() {
		_ = conn.Close() // first: Stop waits for a handshake that nobody answers
		srv.Stop()
	})
	defer stop()
	go func() {
		defer cancel()
		wait, free := context.WithTimeout(ctx, uplinkTimeout)
		defer free()
		select {
		case <-side.opened:
			<-l.done
		case <-l.done:
		case <-wait.Done(): // connected to something that is no server, or a sick one
		}
	}()
	err := srv.Serve(l)
	srv.Stop()
	_ = conn.Close()
	if l.watched.expired.Load() {
		return unreachable("the session was refused", ErrExpired)
	}
	if ctx.Err() != nil {
		return unreachable("the server closed the session", ctx.Err())
	}
	return unreachable("the session ended", err)
}

type agentSide struct {
	ctx    context.Context //nolint:containedctx // the life of the session, which outlives each call
	handle Handler
	up     func(context.Context, *Uplink)
	// opened is closed by the first uplink
	opened chan struct{}
	once   sync.Once
}

func (a *agentSide) call(ctx context.Context, in *frame) *frame {
	v, err := a.handle(ctx, in.Method, in.Body)
	return pack(in.ID, v, err)
}

func (a *agentSide) uplink(stream grpc.ServerStream) error {
	a.once.Do(func() { close(a.opened) })
	u := &Uplink{stream: stream, pending: map[uint64]chan *frame{}, done: make(chan struct{})}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer close(u.done)
	go a.up(ctx, u)
	for {
		in := new(frame)
		if err := stream.RecvMsg(in); err != nil {
			return err
		}
		u.answer(in)
	}
}

func (u *Uplink) answer(in *frame) {
	u.mu.Lock()
	ch := u.pending[in.ID]
	delete(u.pending, in.ID)
	u.mu.Unlock()
	if ch != nil {
		ch <- in
	}
}

// Call asks the server something and waits for the reply.
func (u *Uplink) Call(ctx context.Context, method string, req, reply any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return errs.New(errs.Internal, "the message cannot be written").Because(err)
	}
	ch := make(chan *frame, 1)
	n, err := u.send(method, body, ch)
	if err != nil {
		return unreachable("the server cannot be reached", err)
	}
	defer u.forget(n)
	select {
	case <-ctx.Done():
		return errs.New(errs.Timeout, "the server did not answer in time").Because(ctx.Err())
	case <-u.done:
		return unreachable("the session ended before the server answered", nil)
	case f := <-ch:
		return f.unpack(reply)
	}
}

func (u *Uplink) send(method string, body []byte, ch chan *frame) (uint64, error) {
	u.mu.Lock()
	u.next++
	n := u.next
	u.pending[n] = ch
	u.mu.Unlock()
	u.sending.Lock()
	defer u.sending.Unlock()
	if err := u.stream.SendMsg(&frame{ID: n, Method: method, Body: body}); err != nil {
		u.forget(n)
		return 0, err
	}
	return n, nil
}

func (u *Uplink) forget(n uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.pending, n)
}
