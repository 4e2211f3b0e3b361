package server

import (
	"context"
	"net/http"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func (s *Server) systemRoutes() []Route {
	read, admin := auth.Need{Resource: auth.System, Action: auth.Read}, auth.Need{Resource: auth.System, Action: auth.Admin}
	public := auth.Need{Resource: auth.Public}
	return []Route{
		handle(Route{Method: "GET", Path: "/api/v1/system", ID: "getSystem", Summary: "Which cluster, which server, who am I", Need: read}, s.system),
		handle(Route{
			Method: "GET", Path: "/api/v1/audit", ID: "listAudit", Summary: "List audit records, newest first", Need: admin,
			Query: listParams(Param{"action", "Of this action; several are parted by commas."}, Param{"object", "About the object of this name" + nameDoc}, Param{"outcome", "accepted or denied."}, Param{"principal", "Asked by this principal."}),
		}, s.listAudit),
		handle(Route{Method: "GET", Path: "/api/v1/audit/verify", ID: "verifyAudit", Summary: "Walk the audit chain", Need: admin}, s.verifyAudit),
		handle(Route{Method: "GET", Path: "/api/v1/debug/tasks", ID: "listTasks", Summary: "What the reconcilers of this server did lately", Need: admin}, s.listTasks),
		handle(Route{Method: "GET", Path: "/api/v1/ca", ID: "getCA", Summary: "The cluster's root certificate", Need: public}, s.authority),
		raw(Route{Method: "GET", Path: "/api/v1/openapi.json", ID: "getOpenAPI", Summary: "This API's document", Need: public, stream: "OpenAPI 3.1"}, s.openAPI),
		raw(Route{Method: "GET", Path: "/healthz", ID: "healthz", Summary: "Does the process live?", Need: public, stream: "ok", vital: true, free: true}, healthz),
		raw(Route{Method: "GET", Path: "/readyz", ID: "readyz", Summary: "Can the server work (database, leases)?", Need: public, stream: "ok", vital: true}, s.readyz),
	}
}

// raw makes a route of a handler that reads and writes by itself.
func raw(rt Route, serve func(w http.ResponseWriter, r *Request) error) Route {
	rt.serve = serve
	return rt
}

func (s *Server) system(ctx context.Context, r *Request, _ none) (reply[api.System], error) {
	servers, err := s.control.Servers(ctx)
	if err != nil {
		return reply[api.System]{}, err
	}
	done, err := s.control.SetupDone(ctx)
	return reply[api.System]{Body: api.System{
		Cluster: s.control.Cluster().String(), Server: s.member.ID().String(), Version: s.opts.Version,
		Fingerprint: s.fingerprint, Servers: servers, SetupDone: done,
		Principal: r.Caller.Name, Role: string(r.Caller.Role), RecoveryHold: s.control.Holds().Now().String(),
	}}, err
}

func (s *Server) authority(context.Context, *Request, none) (reply[api.CA], error) {
	ca := s.control.Authority()
	return reply[api.CA]{Body: api.CA{
		CertificatePEM: string(ca.CertPEM()), Fingerprint: s.fingerprint, ExpiresAt: ca.Cert.NotAfter.UTC(),
	}}, nil
}

func (s *Server) listAudit(ctx context.Context, r *Request, _ none) (reply[api.List[api.AuditRecord]], error) {
	p, err := s.pages.read(r, "audit")
	if err != nil {
		return reply[api.List[api.AuditRecord]]{}, err
	}
	records, next, err := s.control.Audit(ctx, p)
	return list(records, s.pages.next(r, "audit", next), toAudit), err
}

func (s *Server) verifyAudit(ctx context.Context, _ *Request, _ none) (reply[api.AuditVerified], error) {
	n, err := s.control.VerifyAudit(ctx)
	out := api.AuditVerified{Records: n, Intact: err == nil}
	if err != nil {
		if errs.Is(err, errs.DBUnavailable) {
			return reply[api.AuditVerified]{}, err
		}
		out.Problem = err.Error()
	}
	return reply[api.AuditVerified]{Body: out}, nil
}

func (s *Server) listTasks(_ context.Context, _ *Request, _ none) (reply[api.List[api.Task]], error) {
	return list(s.tasks.Reports(), "", toTask), nil
}

func healthz(w http.ResponseWriter, _ *Request) error {
	_, err := w.Write([]byte("ok\n"))
	return ignore(err)
}

// readyz: a server without its database or its lease must get no traffic.
func (s *Server) readyz(w http.ResponseWriter, r *Request) error {
	if err := s.ready(r.Context()); err != nil {
		return err
	}
	_, err := w.Write([]byte("ok\n"))
	return ignore(err)
}

// ignore drops the error of writing to a client that has gone.
func ignore(error) error { return nil }
