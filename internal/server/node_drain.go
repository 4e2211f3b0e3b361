package server

import (
	"context"
	"net/http"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/drain"
	"github.com/novacron/novacron/internal/domain/vm"
)

func (s *Server) drainRoutes() []Route {
	// it stops and moves the VMs of whoever has some there
	admin := auth.Need{Resource: auth.NodeRes, Action: auth.Admin}
	query := []Param{waitParam, {"dry_run", "true: change nothing, and say what would be done."}}
	return []Route{
		handle(Route{
			Method: "POST", Path: "/api/v1/nodes/{node}/drain", ID: "drainNode", Summary: "Cordon a node and empty it of its VMs",
			Need: admin, Status: http.StatusAccepted, Query: query,
		}, s.drainNode),
		handle(Route{
			Method: "POST", Path: "/api/v1/nodes/{node}/return", ID: "returnNode", Summary: "Give a node new VMs again, and what drains took from it",
			Need: admin, Status: http.StatusAccepted, Query: query,
		}, s.returnNode),
		handle(Route{
			Method: "GET", Path: "/api/v1/nodes/{node}/drain", ID: "getNodeDrain", Summary: "Read the newest drain of a node, or return to it",
			Need: auth.Need{Resource: auth.NodeRes, Action: auth.Read},
		}, s.getDrain),
	}
}

func (s *Server) drainNode(ctx context.Context, r *Request, b api.NodeDrain) (reply[api.NodeDrainResult], error) {
	req := drain.Request{
		Policy: vm.DrainPolicy(b.Policy), Parallel: b.Parallel, Grace: patience(b.GraceSeconds), Partial: b.Partial, Reason: b.Reason,
	}
	return s.draining(ctx, r, b.Reason,
		func() (drain.Plan, error) { return s.control.PlanDrain(ctx, r.Arg("node"), req) },
		func() (control.Accepted, error) { return s.control.DrainNode(ctx, r.Caller, r.Arg("node"), req) })
}

func (s *Server) returnNode(ctx context.Context, r *Request, b api.NodeReturn) (reply[api.NodeDrainResult], error) {
	req := drain.Request{Policy: vm.DrainPolicy(b.Policy), Parallel: b.Parallel, Grace: patience(b.GraceSeconds), Reason: b.Reason}
	return s.draining(ctx, r, b.Reason,
		func() (drain.Plan, error) { return s.control.PlanReturn(ctx, r.Arg("node"), req) },
		func() (control.Accepted, error) {
			return s.control.ReturnNode(ctx, r.Caller, r.Arg("node"), b.VMs, req)
		})
}

func patience(asked *int64) time.Duration {
	if asked == nil {
		return drain.DefaultGrace
	}
	return seconds(*asked)
}

// draining answers with a plan, or with what was begun.
func (s *Server) draining(ctx context.Context, r *Request, reason string, plan func() (drain.Plan, error), begin func() (control.Accepted, error)) (reply[api.NodeDrainResult], error) {
	if err := storables(map[string]string{"/reason": reason}); err != nil {
		return reply[api.NodeDrainResult]{}, err
	}
	dry, err := boolParam(r, "dry_run")
	if err != nil {
		return reply[api.NodeDrainResult]{}, err
	}
	if dry {
		p, err := plan()
		return reply[api.NodeDrainResult]{Status: http.StatusOK, Body: api.NodeDrainResult{Plan: toDrainPlan(p)}}, err
	}
	begun, err := s.begin(ctx, r, begin)
	out := reply[api.NodeDrainResult]{Status: begun.Status}
	if begun.Body.Job.ID != "" { // else nothing was left to do
		out.Body.Job = &begun.Body.Job
	}
	return out, err
}

func (s *Server) getDrain(ctx context.Context, r *Request, _ none) (reply[api.Drain], error) {
	d, err := s.control.LastDrain(ctx, r.Arg("node"))
	return reply[api.Drain]{Body: toDrain(d)}, err
}

func toDrainPlan(p drain.Plan) *api.DrainPlan {
	out := &api.DrainPlan{Node: p.Node.Name, VMs: toDrainVMs(p.Items)}
	for _, i := range p.Blocked() {
		out.Blocked = append(out.Blocked, i.Name)
	}
	return out
}

func toDrainVMs(items []drain.Item) []api.DrainVM {
	out := []api.DrainVM{}
	for _, i := range items {
		v := api.DrainVM{ID: i.VM.String(), Name: i.Name, Action: string(i.Action), Target: i.Target.Name, State: string(i.State), Stage: string(i.Stage), Reason: i.Why}
		v.StartedAt, v.FinishedAt = i.StartedAt, i.FinishedAt
		if i.Job != nil {
			v.Job = i.Job.String()
		}
		out = append(out, v)
	}
	return out
}

func toDrain(d drain.Drain) api.Drain {
	return api.Drain{
		Kind: "drain", ID: d.ID.String(), Type: string(d.Kind), Node: d.Node.Name, State: d.State, Policy: string(d.Policy),
		Parallel: d.Parallel, Partial: d.Partial, Reason: d.Reason, VMs: toDrainVMs(d.Items),
		CreatedBy: d.CreatedBy, CreatedAt: d.CreatedAt.UTC(), FinishedAt: d.FinishedAt,
	}
}
