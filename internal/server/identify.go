package server

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// socketAccount is the account of a peer on the UNIX socket.
func socketAccount(r *http.Request) (string, bool) {
	uid, ok := r.Context().Value(peerKey{}).(uint32)
	return "uid " + strconv.FormatUint(uint64(uid), 10), ok
}

// authenticate finds who asks: the kernel's word on the UNIX socket, a bearer
// token elsewhere. Everything that is wrong with a credential gets one answer.
func (s *Server) authenticate(r *http.Request) (auth.Principal, error) {
	if uid, ok := r.Context().Value(peerKey{}).(uint32); ok {
		if uid != 0 && !s.mayUseSocket(uid) {
			return auth.Principal{}, errs.New(errs.Forbidden, "user %d may not use the local socket: it belongs to the user who runs NovaCron", uid)
		}
		return auth.Principal{Name: fmt.Sprintf("uid %d", uid), Role: auth.Administrator, Origin: "socket"}, nil
	}
	if ticket := consoleTicket(r); ticket != "" {
		p, err := s.control.SpendConsoleTicket(r.Context(), ticket, r.PathValue("vm"))
		p.Origin = r.RemoteAddr
		return p, err
	}
	h := r.Header.Get("Authorization")
	secret, ok := strings.CutPrefix(h, "Bearer ")
	if !ok || !strings.HasPrefix(secret, pki.PrefixAPI) || len(secret) > 256 {
		return auth.Principal{}, errs.New(errs.Unauthenticated, "this needs an API token: send Authorization: Bearer %s…", pki.PrefixAPI)
	}
	p, err := s.control.Authenticate(r.Context(), secret)
	p.Origin = r.RemoteAddr
	return p, err
}

// The subprotocols of a console's WebSocket: a client that cannot send headers names
// the first, and the second with its ticket behind it.
const (
	consoleProtocol = "novacron.console"
	ticketProtocol  = "novacron.ticket."
)

// consoleTicket is the ticket that a request for a console shows; empty for none.
func consoleTicket(r *http.Request) string {
	if r.Pattern != "GET "+consolePath && r.Pattern != "GET "+vncPath || r.Header.Get("Authorization") != "" {
		return ""
	}
	for p := range strings.SplitSeq(strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ","), ",") {
		if t, ok := strings.CutPrefix(strings.TrimSpace(p), ticketProtocol); ok && strings.HasPrefix(t, pki.PrefixTicket) && len(t) <= 256 {
			return t
		}
	}
	return ""
}

// identify finds who asks, within the limits, and gives the request its place at
// work. Who has no good credential is anonymous where nobody has to have one.
func (g *gate) identify(r *Request, rt Route) error {
	r.Caller.Principal = auth.Principal{Name: "anonymous", Role: auth.Anonymous, Origin: r.RemoteAddr}
	if rt.free {
		return nil
	}
	c := g.limits.claim(r.Request)
	var err error
	switch {
	case rt.vital && rt.Need.Resource == auth.Public:
		r.visit.work, err = g.limits.look(r.Context(), c.address)
	case c.account == "":
		err = g.stranger(r, rt, c)
	default:
		err = g.acquaintance(r, rt, c)
	}
	if err == nil && lasts(rt, r.Request) {
		r.visit.stay, err = g.limits.stay(r.Context(), r.Caller.Name)
	}
	return err
}

// acquaintance is a request whose credential was good lately.
func (g *gate) acquaintance(r *Request, rt Route, c claim) (err error) {
	if r.visit.work, err = g.limits.enter(r.Context(), rt, c.account); err != nil {
		return err
	}
	who, err := g.authenticate(r.Request)
	if err != nil {
		if refusedCredential(err) {
			g.limits.known.bad(c.secret)
			g.limits.failed(c.address)
			g.denials.note(r.Context(), r.Caller, actionAuthenticate, r.URL.Path)
		}
		return publicly(rt, err)
	}
	r.Caller.Principal = who
	return nil
}

// stranger is a request with no credential, or one that this server does not know
// to be good.
func (g *gate) stranger(r *Request, rt Route, c claim) error {
	knock := func() (err error) {
		r.visit.work, err = g.limits.knock(r.Context(), c.address, c.secret == "")
		if errs.Is(err, errs.RateLimited) {
			g.denials.count(r.Caller, actionAuthenticate)
		}
		return err
	}
	if c.secret == "" && rt.Need.Resource == auth.Public && rt.body != nil {
		r.visit.later = knock // a body that comes slowly must not take a place from others
		return nil
	}
	if err := knock(); err != nil {
		return err
	}
	who, err := g.authenticate(r.Request)
	if err != nil {
		g.unknown(r, rt, c, err)
		return publicly(rt, err)
	}
	if !c.once {
		g.limits.known.good(c.secret, who.Name)
	}
	r.Caller.Principal = who
	r.park() // the line of those who are known is another
	r.visit.work, err = g.limits.enter(r.Context(), rt, who.Name)
	return err
}

// unknown takes note of a stranger's credential that is not good, or missing where
// there must be one.
func (g *gate) unknown(r *Request, rt Route, c claim, err error) {
	if !refusedCredential(err) {
		return
	}
	if c.secret != "" {
		g.limits.failed(c.address)
	}
	if c.secret != "" || rt.Need.Resource != auth.Public {
		g.denials.note(r.Context(), r.Caller, actionAuthenticate, r.URL.Path)
	}
}

// refusedCredential tells a bad credential from a failure to look.
func refusedCredential(err error) bool {
	return errs.Is(err, errs.Unauthenticated) || errs.Is(err, errs.Forbidden)
}

// publicly forgives where nobody has to show a credential.
func publicly(rt Route, err error) error {
	if rt.Need.Resource == auth.Public {
		return nil
	}
	return err
}

// allowed refuses what the caller's role may not, and records that.
func (g *gate) allowed(ctx context.Context, r *Request, rt Route) error {
	who := r.Caller
	if auth.May(who.Role, rt.Need) {
		return nil
	}
	// who hangs up is recorded too
	g.denials.note(context.WithoutCancel(ctx), who, rt.ID, r.URL.Path)
	return errs.New(errs.Forbidden, "the role %s may not %s a %s", who.Role, rt.Need.Action, rt.Need.Resource)
}

// actionAuthenticate is what the audit log calls a request with a bad credential.
const actionAuthenticate = "authenticate"
