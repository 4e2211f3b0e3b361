package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// joinTimeout bounds one try at one server.
const joinTimeout = 15 * time.Second

// Join makes this folder a node of the cluster that issued the token. The
// server is proved by the token's pin before the token's secret is shown to it.
func Join(ctx context.Context, dir, name, token string, simulated bool, clk clock.Clock) error {
	t, err := pki.ParseJoinToken(token)
	if err != nil {
		return err
	}
	key, err := pki.NewKey()
	if err != nil {
		return err
	}
	csr, err := pki.Request(key)
	if err != nil {
		return err
	}
	req := nodelink.JoinRequest{Token: t.Secret, Name: name, CSRPEM: string(csr), Simulated: simulated}
	reply, err := askWhileBusy(ctx, t, req, clk)
	if errs.Is(err, errs.NodeUnreachable) && !simulated {
		// they may have moved since the token was made
		if found := nearby(ctx, [32]byte(t.Pin)); len(found) > 0 {
			t.Servers = found
			reply, err = askAny(ctx, found, t, req, clk)
		}
	}
	if err != nil {
		return err
	}
	if len(reply.Servers) == 0 {
		reply.Servers = t.Servers
	}
	return store(dir, reply, name, simulated, key)
}

// busyFor bounds how long a host asks again that the servers turn away, and
// busyPause how long it waits in between.
const (
	busyFor   = 2 * time.Minute
	busyPause = 2 * time.Second
)

// askWhileBusy asks until the servers have time for one more.
func askWhileBusy(ctx context.Context, t pki.JoinToken, req nodelink.JoinRequest, clk clock.Clock) (nodelink.JoinReply, error) {
	for until := clk.Boot() + busyFor; ; {
		reply, err := askAny(ctx, t.Servers, t, req, clk)
		if !errs.Is(err, errs.RateLimited) || clk.Boot() > until {
			return reply, err
		}
		if err := clk.Sleep(ctx, busyPause+rand.N(busyPause)); err != nil { //nolint:gosec // jitter, not a secret
			return reply, err
		}
	}
}

// askAny asks one server after the other until one answers.
func askAny(ctx context.Context, servers []string, t pki.JoinToken, req nodelink.JoinRequest, clk clock.Clock) (nodelink.JoinReply, error) {
	var failures []error
	for _, addr := range servers {
		reply, err := askToJoin(ctx, addr, t, req, clk)
		if err == nil || !errs.Is(err, errs.NodeUnreachable) {
			return reply, err // a server answered; another would answer the same
		}
		failures = append(failures, err)
	}
	return nodelink.JoinReply{}, errs.New(errs.NodeUnreachable, "no server could be reached to join").Because(errors.Join(failures...))
}

func askToJoin(ctx context.Context, addr string, t pki.JoinToken, req nodelink.JoinRequest, clk clock.Clock) (nodelink.JoinReply, error) {
	var reply nodelink.JoinReply
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{nodelink.ALPNJoin},
		ServerName: pki.ServerName,
		// the usual verification needs a root, and the pin is how we find it
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection below is the verification
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := pinned(cs.PeerCertificates, t, clk)
			return err
		},
	}}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		if e, ok := errors.AsType[*errs.Error](err); ok {
			return reply, e
		}
		return reply, errs.New(errs.NodeUnreachable, "the server %s cannot be reached", addr).Because(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	err = json.NewEncoder(conn).Encode(req)
	if err == nil {
		err = readReply(conn, &reply)
	}
	if err != nil {
		return reply, errs.New(errs.NodeUnreachable, "the server %s did not answer", addr).Because(err)
	}
	return reply, reply.Error.Err()
}

// readReply reads the one bounded message of a join or a renewal.
func readReply(conn io.Reader, reply any) error {
	return json.NewDecoder(io.LimitReader(conn, 1<<20)).Decode(reply)
}

func pinned(certs []*x509.Certificate, t pki.JoinToken, clk clock.Clock) (*x509.Certificate, error) {
	return pki.PinnedRoot(certs, [32]byte(t.Pin), clk.Now())
}
