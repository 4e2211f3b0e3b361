package server

import (
	"context"
	"net/http"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/vocab/id"
)

func (s *Server) migrationRoutes() []Route {
	read := auth.Need{Resource: auth.VM, Action: auth.Read}
	return []Route{
		handle(Route{
			Method: "POST", Path: "/api/v1/vms/{vm}/migrate", ID: "migrateVM", Summary: "Move a VM to another node",
			// which node a VM is on is not for everybody who may start it
			Need: auth.Need{Resource: auth.VM, Action: auth.Admin}, Status: http.StatusAccepted,
			Query: []Param{waitParam, {"dry_run", "true: change nothing, and say what would be done."}},
		}, s.migrateVM),
		handle(Route{
			Method: "POST", Path: "/api/v1/vms/{vm}/migrate/cutover", ID: "cutoverVM", Summary: "Have a warm migration come to its end",
			Need: auth.Need{Resource: auth.VM, Action: auth.Admin}, Status: http.StatusAccepted, Query: []Param{waitParam},
		}, s.cutoverVM),
		handle(Route{
			Method: "GET", Path: "/api/v1/migrations", ID: "listMigrations", Summary: "List migrations, newest first", Need: read,
			Query: listParams(Param{"vm", "Of the VM of this name" + nameDoc}, Param{"state", "In this state; several are parted by commas."},
				Param{"source", "From the node of this name; several are parted by commas."}, Param{"target", "To the node of this name; several are parted by commas."}),
		}, s.listMigrations),
		handle(Route{Method: "GET", Path: "/api/v1/migrations/{migration}", ID: "getMigration", Summary: "Read the record of a migration", Need: read}, s.getMigration),
	}
}

func (s *Server) migrateVM(ctx context.Context, r *Request, b api.VMMigrate) (reply[api.VMMigrateResult], error) {
	var none reply[api.VMMigrateResult]
	if err := storables(map[string]string{"/node": b.Node, "/reason": b.Reason}); err != nil {
		return none, err
	}
	revision, err := etag(r)
	if err != nil {
		return none, err
	}
	r.Caller.Revision = revision
	req := toMigrationRequest(b)
	dry, err := boolParam(r, "dry_run")
	if err != nil {
		return none, err
	}
	if dry {
		plan, err := s.control.PlanMigration(ctx, r.Caller, r.Arg("vm"), req)
		return reply[api.VMMigrateResult]{Status: http.StatusOK, Body: api.VMMigrateResult{Plan: toPlan(plan)}}, err
	}
	begun, err := s.begin(ctx, r, func() (control.Accepted, error) { return s.control.MigrateVM(ctx, r.Caller, r.Arg("vm"), req) })
	return reply[api.VMMigrateResult]{Status: begun.Status, Body: api.VMMigrateResult{Job: &begun.Body.Job}}, err
}

func (s *Server) cutoverVM(ctx context.Context, r *Request, b api.VMCutover) (reply[api.Accepted], error) {
	revision, err := etag(r)
	if err != nil {
		return reply[api.Accepted]{}, err
	}
	r.Caller.Revision = revision
	return s.begin(ctx, r, func() (control.Accepted, error) { return s.control.CutoverVM(ctx, r.Caller, r.Arg("vm"), b.At) })
}

func (s *Server) listMigrations(ctx context.Context, r *Request, _ none) (reply[api.List[api.Migration]], error) {
	p, err := s.pages.read(r, "migrations")
	if err != nil {
		return reply[api.List[api.Migration]]{}, err
	}
	all, next, err := s.control.Migrations(ctx, p)
	return list(all, s.pages.next(r, "migrations", next), toMigration), err
}

func (s *Server) getMigration(ctx context.Context, r *Request, _ none) (reply[api.Migration], error) {
	m, err := id.Parse(r.Arg("migration"))
	if err != nil {
		return reply[api.Migration]{}, err
	}
	out, err := s.control.Migration(ctx, m)
	return reply[api.Migration]{Body: toMigration(out), ETag: int64(out.Revision)}, err
}
