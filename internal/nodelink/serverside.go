package nodelink

import (
	"context"
	"encoding/json"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Session is the server's side of one agent's connection.
type Session struct {
	cc     *grpc.ClientConn
	cancel context.CancelFunc
	done   chan struct{}
	// huge is set when the agent sent more at once than any agent does
	huge atomic.Bool
}

// TooLarge tells whether the agent sent a message larger than there are.
func (s *Session) TooLarge() bool { return s.huge.Load() }

func (s *Session) received(err error) {
	if status.Code(err) == codes.ResourceExhausted {
		s.huge.Store(true)
	}
}

// Accept takes over a connection that an agent opened and opens the uplink on
// it. Calls of the agent go to handle, several at a time, until the session ends.
func Accept(ctx context.Context, conn net.Conn, handle Handler) (*Session, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &Session{cancel: cancel, done: make(chan struct{})}
	var once sync.Once
	dial := func(context.Context, string) (net.Conn, error) {
		err := errs.New(errs.NodeUnreachable, "the agent has to dial again")
		var c net.Conn
		once.Do(func() { c = &watched{Conn: conn, closed: func() error { cancel(); return nil }} })
		if c == nil {
			cancel()
			return nil, err
		}
		return c, nil
	}
	cc, err := grpc.NewClient("passthrough:///agent",
		grpc.WithContextDialer(dial),
		// TLS is beneath: the connection was authenticated before it came here
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{}), grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveWait, PermitWithoutStream: true}),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		cancel()
		return nil, errs.New(errs.Internal, "the session cannot be made").Because(err)
	}
	s.cc = cc
	stream, err := cc.NewStream(ctx, &serviceDesc.Streams[0], "/novacron.Node/Uplink")
	if err != nil {
		s.Close()
		_ = conn.Close()
		close(s.done)
		return nil, unreachable("the agent does not answer", err)
	}
	go s.serveUplink(ctx, stream, handle)
	return s, nil
}

func (s *Session) serveUplink(ctx context.Context, stream grpc.ClientStream, handle Handler) {
	defer close(s.done)
	defer s.Close()
	var mu sync.Mutex
	var wg sync.WaitGroup
	defer wg.Wait()
	// a full house stops the reading, and so, soon, the agent's sending
	house := make(chan struct{}, maxUpCalls)
	for {
		in := new(frame)
		if err := stream.RecvMsg(in); err != nil {
			s.received(err)
			return
		}
		house <- struct{}{}
		wg.Go(func() {
			defer func() { <-house }()
			v, err := handle(ctx, in.Method, in.Body)
			mu.Lock()
			defer mu.Unlock()
			_ = stream.SendMsg(pack(in.ID, v, err)) // a dead stream ends the loop above
		})
	}
}

// Call sends a command and reads its reply. A connection that dies on the way
// is errs.NodeUnreachable; a deadline that passes is errs.Timeout.
func (s *Session) Call(ctx context.Context, cmd Command, reply any) error {
	body, err := json.Marshal(cmd)
	if err != nil {
		return errs.New(errs.Internal, "the command cannot be written").Because(err)
	}
	out := new(frame)
	if err := s.cc.Invoke(ctx, "/novacron.Node/Call", &frame{Method: cmd.Method(), Body: body}, out); err != nil {
		s.received(err)
		// the other side counts the deadline too, and may be a little ahead
		if ctx.Err() != nil || status.Code(err) == codes.DeadlineExceeded {
			return errs.New(errs.Timeout, "the node did not answer %s in time", cmd.Method()).Because(err)
		}
		return unreachable("the node cannot be reached", err)
	}
	return out.unpack(reply)
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Close ends the session.
func (s *Session) Close() {
	s.cancel()
	_ = s.cc.Close()
}
