package nodelink

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Bounds of one session. A command is small: bulk data has its own connections.
const (
	maxMessage = 4 << 20
	// maxUpCalls is how many calls of one agent a server carries out at once; an
	// honest agent has two or three under way.
	maxUpCalls = 16
	// uplinkTimeout is how long a server may take to open the uplink.
	uplinkTimeout = 15 * time.Second
	keepaliveTime = 20 * time.Second
	keepaliveWait = 10 * time.Second
)

// Handler answers calls of the other side.
type Handler func(ctx context.Context, method string, body []byte) (any, error)

// linkServer is the type gRPC registers handlers for.
type linkServer interface {
	call(ctx context.Context, in *frame) *frame
	uplink(stream grpc.ServerStream) error
}

var serviceDesc = grpc.ServiceDesc{
	ServiceName: "novacron.Node",
	HandlerType: (*linkServer)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Call",
		Handler: func(srv any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(frame)
			if err := dec(in); err != nil {
				return nil, err
			}
			return srv.(linkServer).call(ctx, in), nil //nolint:errcheck,forcetypeassert // gRPC checked it at registration
		},
	}},
	Streams: []grpc.StreamDesc{{
		StreamName: "Uplink",
		Handler: func(srv any, stream grpc.ServerStream) error {
			return srv.(linkServer).uplink(stream) //nolint:errcheck,forcetypeassert // gRPC checked it at registration
		},
		ServerStreams: true,
		ClientStreams: true,
	}},
}

// oneConn is a listener that accepts one connection and then waits to be closed.
type oneConn struct {
	conn chan net.Conn
	addr net.Addr
	done chan struct{}
	once sync.Once

	watched *watched
}

func listenOn(c net.Conn) *oneConn {
	l := &oneConn{conn: make(chan net.Conn, 1), addr: c.LocalAddr(), done: make(chan struct{})}
	l.watched = &watched{Conn: c, closed: l.Close}
	l.conn <- l.watched
	return l
}

// Accept implements net.Listener.
func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *oneConn) Addr() net.Addr { return l.addr }

// ErrExpired says that the server holds the node's certificate for expired, whatever
// this machine's clock says.
var ErrExpired = errors.New("the server says that this node's certificate has expired")

// watched tells when a connection is closed, and whether the server refused the
// certificate for its age: in TLS 1.3 that comes with the first read.
type watched struct {
	net.Conn
	closed  func() error
	expired atomic.Bool
}

// expiredAlert is what package tls says of the alert certificate_expired (RFC 8446,
// section 6.2). Those that a peer sends have a type of its own, which it keeps.
var expiredAlert = tls.AlertError(45).Error()

// Read implements net.Conn.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if told, ok := errors.AsType[*net.OpError](err); ok && told.Op == "remote error" && told.Err.Error() == expiredAlert {
		w.expired.Store(true)
	}
	return n, err
}

// Close implements net.Conn.
func (w *watched) Close() error {
	err := w.Conn.Close()
	_ = w.closed()
	return err
}

func grpcServer() *grpc.Server {
	return grpc.NewServer(
		grpc.ForceServerCodec(codec{}),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveWait}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 4, PermitWithoutStream: true}),
	)
}

func unreachable(what string, cause error) error {
	return errs.New(errs.NodeUnreachable, "%s", what).Because(cause)
}
