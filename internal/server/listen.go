package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Bounds of connections.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 32 << 10
)

// tlsConfig serves people by one configuration and agents, told apart by ALPN,
// by others: only those ask for a client certificate.
func tlsConfig(cert *certificates) *tls.Config {
	roots := cert.ca.Pool()
	config := func(alpn string, auth tls.ClientAuthType) *tls.Config {
		return &tls.Config{
			MinVersion: tls.VersionTLS13, GetCertificate: cert.get, NextProtos: []string{alpn},
			ClientAuth: auth, ClientCAs: roots, Time: cert.clock.Now,
		}
	}
	public := config("http/1.1", tls.NoClientCert)
	agents := []*tls.Config{
		config(nodelink.ALPNNode, tls.RequireAndVerifyClientCert),
		config(nodelink.ALPNBulk, tls.RequireAndVerifyClientCert),
		config(nodelink.ALPNJoin, tls.NoClientCert),
		// the handshake proves the key; the certificate, which may have expired, is
		// verified by who renews it
		config(nodelink.ALPNRenew, tls.RequireAnyClientCert),
	}
	outer := public.Clone()
	outer.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		for _, c := range agents {
			if slices.Contains(h.SupportedProtos, c.NextProtos[0]) {
				return c, nil
			}
		}
		return public, nil
	}
	return outer
}

// listen opens the API port, wording what people can do something about.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return nil, errs.New(errs.Conflict, "the port of %s is taken by another program: stop it, or choose another with --listen", addr).Because(err)
	case errors.Is(err, unix.EACCES):
		return nil, errs.New(errs.Forbidden, "this user may not listen on %s: choose a port above 1023 with --listen", addr).Because(err)
	case err != nil:
		return nil, errs.New(errs.InvalidField, "cannot listen on %q: it is host:port of this machine", addr).Because(err)
	}
	return l, nil
}

// listenLocal opens the UNIX socket, 0600, replacing one whose server is gone.
func listenLocal(ctx context.Context, path string) (net.Listener, error) {
	var d net.Dialer
	if c, err := d.DialContext(ctx, "unix", path); err == nil {
		_ = c.Close()
		return nil, errs.New(errs.Conflict, "another server listens on the local socket")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.HostFailure, "the local socket cannot be replaced").Because(err)
	}
	// the socket is born private: umask is of the process, so the folder's mode
	// guards it until chmod
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the local socket cannot be made").Because(err)
	}
	return l, nil
}

// peerKey carries the uid at the other end of the UNIX socket.
type peerKey struct{}

// peerUID asks the kernel who is at the other end.
func peerUID(c net.Conn) (uint32, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a UNIX socket")
	}
	rc, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = rc.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// mayUseSocket tells whether a user was named as one who may.
func (s *Server) mayUseSocket(uid uint32) bool { return slices.Contains(s.opts.SocketUIDs, uid) }

// httpServer serves the routes on the TLS port, and hands agents over.
func (s *Server) httpServer(ctx context.Context, cert *certificates) *http.Server {
	hand := func(serve func(context.Context, *tls.Conn)) func(*http.Server, *tls.Conn, http.Handler) {
		return func(_ *http.Server, c *tls.Conn, _ http.Handler) { serve(ctx, c) }
	}
	return &http.Server{
		Handler: s.mux, TLSConfig: tlsConfig(cert), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){
			nodelink.ALPNNode:  hand(s.agents.accept),
			nodelink.ALPNBulk:  hand(s.agents.bulk),
			nodelink.ALPNJoin:  hand(s.agents.join),
			nodelink.ALPNRenew: hand(s.agents.renew),
		},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// localServer serves the routes on the UNIX socket.
func (s *Server) localServer(ctx context.Context) *http.Server {
	return &http.Server{
		Handler: s.mux, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			uid, err := peerUID(c)
			if err != nil {
				return ctx // nobody: the gate refuses
			}
			return context.WithValue(ctx, peerKey{}, uid)
		},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}
