package server

import (
	"context"
	"net/http"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/vocab/id"
)

func (s *Server) migrationRoutes() []Route {
	read := auth.Need{Resource: auth.VM, Action: auth.Read}
	return []Route{
		handle(Route{
			Method: "POST", Path: "/api/v1/vms/{vm}/migrate", ID: "migrateVM", Summary: "Move a stopped or suspended VM to another node",
			// which node a VM is on is not for everybody who may start it
			Need: auth.Need{Resource: auth.VM, Action: auth.Admin}, Status: http.StatusAccepted,
			Query: []Param{waitParam, {"dry_run", "true: change nothing, and say what would be done."}},
		}, s.migrateVM),
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
	req := migration.Request{Node: b.Node, Reason: b.Reason}
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

func toPlan(p migration.Plan) *api.MigrationPlan {
	out := &api.MigrationPlan{Type: string(p.Kind), Source: p.Source.Name, Bytes: api.Bytes(p.Bytes), Notes: p.Notes, Candidates: []api.MigrationCandidate{}}
	for _, c := range p.Ranked {
		out.Candidates = append(out.Candidates, api.MigrationCandidate{Node: c.Name, Score: c.Score})
	}
	if len(p.Ranked) > 0 {
		out.Target = p.Target().Name
	}
	for _, r := range p.Rejected {
		out.Rejected = append(out.Rejected, api.RejectedNode{Node: r.Name, Reasons: r.Reasons})
	}
	return out
}

func toMigration(m migration.Migration) api.Migration {
	out := api.Migration{
		Kind: "migration", ID: m.ID.String(), VM: api.JobTarget{Kind: "vm", ID: m.VM.String(), Name: m.VMName},
		Type: string(m.Kind), State: string(m.State), Reason: m.Reason, Source: m.Source.Name, Target: m.Target.Name,
		OwnerEpoch: int64(m.SwappedEpoch), PredictedBytes: api.Bytes(m.Predicted.Bytes), BytesMoved: api.Bytes(m.BytesMoved), Phases: []api.MigrationPhase{},
		CreatedBy: m.CreatedBy, Revision: int64(m.Revision), CreatedAt: m.CreatedAt.UTC(), FinishedAt: m.FinishedAt,
	}
	for _, p := range m.Phases {
		out.Phases = append(out.Phases, api.MigrationPhase{Name: p.Name, At: p.At.UTC()})
	}
	if m.Failure != nil {
		out.Error = &api.JobError{Code: string(m.Failure.Code), Detail: m.Failure.Message}
	}
	return out
}
