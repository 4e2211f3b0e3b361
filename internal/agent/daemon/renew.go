package daemon

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// When a certificate is looked at and renewed. The wall clock decides, because
// X.509 knows nothing else, and it may step: hence the look every hour.
const (
	renewLook = time.Hour
	// renewRetry is the pause after a renewal that failed; it doubles up to
	// renewLook.
	renewRetry = 10 * time.Second
	// renewSpread keeps a thousand nodes that joined together from renewing
	// together: each renews up to so much of a certificate's life earlier.
	renewSpread = 20 // one twentieth
)

// renewals keeps the node's certificate good until ctx ends: renewed at two
// thirds of its life, or at once when it has expired meanwhile or a server says so,
// whose clock may be another. Guests never depend on it.
func (l *links) renewals(ctx context.Context) {
	retry, early := renewRetry, rand.N(pki.NodeLife/renewSpread) //nolint:gosec // it only keeps nodes from renewing at once: who guesses it gains nothing
	for refused := false; ; {
		wait, deaf := min(renewLook, pki.RenewAt(l.who.certificate()).Add(-early).Sub(l.clock.Now())), time.Duration(0)
		if wait <= 0 || refused {
			if refused { // a server whose clock is wrong would have it renewed at each try
				deaf = retry
			}
			if wait = l.attempt(ctx, retry); wait < renewLook || refused {
				retry = min(2*retry, renewLook)
			} else {
				retry = renewRetry
			}
		}
		var err error
		if refused, err = l.untilRefused(ctx, wait, deaf); err != nil {
			return
		}
	}
}

// attempt renews the certificate and tells when to look again: after retry, where
// another try may do better.
func (l *links) attempt(ctx context.Context, retry time.Duration) time.Duration {
	err := l.renew(ctx)
	switch {
	case err == nil: // also where the servers' clock is far behind
	case errs.Is(err, errs.NodeRemoved):
		l.removed()
	case errs.Is(err, errs.Forbidden):
		l.log.Error("the cluster does not renew this node's certificate; its guests run on", "err", err)
	default:
		l.tellUnrenewed(err)
		return retry
	}
	return renewLook
}

// untilRefused waits, and tells whether a server refused the certificate for its age
// meanwhile; a refusal in the first while, deaf, is not listened to.
func (l *links) untilRefused(ctx context.Context, wait, deaf time.Duration) (bool, error) {
	deaf = min(wait, deaf)
	if err := l.clock.Sleep(ctx, deaf); err != nil {
		return false, err
	}
	over, stop := l.clock.After(wait - deaf)
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-over:
			return false, nil
		case shown := <-l.refused:
			if shown == l.who.certificate() { // it was not renewed since
				return true, nil
			}
		}
	}
}

func (l *links) tellUnrenewed(err error) {
	expires := l.who.certificate().NotAfter
	if l.clock.Now().After(expires) {
		l.log.Error("the node's certificate has expired and cannot be renewed yet; its guests run on", "expired", expires, "err", err)
		return
	}
	l.log.Warn("the node's certificate cannot be renewed yet", "expires", expires, "err", err)
}

// renew asks one server after the other for a new certificate.
func (l *links) renew(ctx context.Context) error {
	var failures []error
	for _, addr := range l.servers() {
		certPEM, err := l.askToRenew(ctx, addr)
		if err == nil {
			if err = l.who.renewed([]byte(certPEM)); err == nil {
				l.log.Info("the node's certificate is renewed", "server", addr, "expires", l.who.certificate().NotAfter)
			}
			return err
		}
		if errs.Is(err, errs.Forbidden) || errs.Is(err, errs.NodeRemoved) {
			return err // every server would say so
		}
		failures = append(failures, err)
	}
	return errs.New(errs.NodeUnreachable, "no server renewed the node's certificate").Because(errors.Join(failures...))
}

func (l *links) servers() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]string, 0, len(l.kept))
	for addr := range l.kept {
		out = append(out, addr)
	}
	return out
}

func (l *links) askToRenew(ctx context.Context, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	conn, err := l.dial(ctx, addr, nodelink.ALPNRenew)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var reply nodelink.RenewReply
	if err := readReply(conn, &reply); err != nil {
		return "", errs.New(errs.NodeUnreachable, "the server %s did not answer", addr).Because(err)
	}
	return reply.CertPEM, reply.Error.Err()
}
