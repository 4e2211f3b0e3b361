package server

import (
	"context"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/recovery"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func (s *Server) recoveryRoutes() []Route {
	return []Route{
		handle(Route{Method: "GET", Path: "/api/v1/recovery", ID: "getRecovery", Summary: "What is in recovery hold, what differs, and what confirming it does", Need: auth.Need{Resource: auth.System, Action: auth.Read}}, s.getRecovery),
		handle(Route{Method: "POST", Path: "/api/v1/recovery/confirm", ID: "confirmRecovery", Summary: "Carry out the plan that was shown, and end the recovery hold", Need: auth.Need{Resource: auth.System, Action: auth.Admin}}, s.confirmRecovery),
	}
}

func (s *Server) getRecovery(ctx context.Context, _ *Request, _ none) (reply[api.Recovery], error) {
	r, err := s.control.Recovery(ctx)
	return reply[api.Recovery]{Body: toRecovery(r)}, err
}

func (s *Server) confirmRecovery(ctx context.Context, r *Request, b api.RecoveryConfirm) (reply[api.Recovery], error) {
	if b.Plan == "" {
		return reply[api.Recovery]{}, errs.New(errs.InvalidField, "which plan is confirmed? 'novacron recovery show' names it").
			At(errs.Field{Pointer: "/plan", Message: "is required"})
	}
	adopt, err := ids("/adopt", b.Adopt)
	if err != nil {
		return reply[api.Recovery]{}, err
	}
	leave, err := ids("/leave", b.Leave)
	if err != nil {
		return reply[api.Recovery]{}, err
	}
	out, err := s.control.ConfirmRecovery(ctx, r.Caller, b.Plan, adopt, leave)
	return reply[api.Recovery]{Body: toRecovery(out)}, err
}

func ids(field string, in []string) ([]id.ID, error) {
	var out []id.ID
	for _, v := range in {
		u, err := id.Parse(v)
		if err != nil {
			return nil, errs.New(errs.InvalidID, "%q is not an id", errs.Clip(v)).At(errs.Field{Pointer: field, Message: "holds what is no id", Got: v})
		}
		out = append(out, u)
	}
	return out, nil
}

func toRecovery(r control.Recovery) api.Recovery {
	out := api.Recovery{
		Held: r.Held(), Cause: r.Cause, Reason: r.Reason, Since: utc(r.Since), Plan: r.Plan.ID,
		Nodes: []api.RecoveryNode{}, VMs: []api.RecoveryVM{}, Jobs: []api.RecoveryJob{}, Images: []string{}, Left: []api.RecoveryLeft{},
		Confirmed: r.Recovery.Plan, ConfirmedBy: r.ConfirmedBy, RestoredAt: r.RestoredAt, BackupOf: r.BackupOf, ConfirmedAt: r.ConfirmedAt,
	}
	names, reasons := map[id.ID]string{}, map[id.ID]string{}
	for _, n := range r.Nodes {
		reasons[n.ID], names[n.ID] = n.Reason, n.Name
	}
	for _, n := range r.Plan.Nodes {
		state := "away"
		if n.Release {
			state = "compared"
		}
		names[n.ID] = n.Name
		out.Nodes = append(out.Nodes, api.RecoveryNode{ID: n.ID.String(), Name: n.Name, State: state, Reason: reasons[n.ID]})
	}
	for _, v := range r.Plan.VMs {
		out.VMs = append(out.VMs, toRecoveryVM(v))
	}
	for _, j := range r.Plan.Jobs {
		out.Jobs = append(out.Jobs, api.RecoveryJob{
			ID: j.ID.String(), Type: j.Kind, Target: api.JobTarget{Kind: j.TargetKind, ID: j.Target.String(), Name: j.TargetName},
			Action: string(j.Action), Why: j.Why,
		})
	}
	for _, i := range r.Plan.Images {
		out.Images = append(out.Images, i.Name)
	}
	for _, l := range r.Left {
		node := names[l.Node]
		if node == "" {
			node = l.Node.String()
		}
		out.Left = append(out.Left, api.RecoveryLeft{VM: l.VM.String(), Node: node, Name: l.Name, By: l.By, At: l.At.UTC()})
	}
	return out
}

func toRecoveryVM(v recovery.VMPlan) api.RecoveryVM {
	out := api.RecoveryVM{
		Case: string(v.Case), ID: v.VM.String(), Name: v.Name, Node: v.NodeName, Phase: string(v.State), RecordedAt: utc(v.Since),
		Differences: append([]string{}, v.Differences...), Action: string(v.Action), Why: v.Why,
	}
	if v.Adoption != nil && v.Adoption.Name != v.Name {
		out.As = v.Adoption.Name
	}
	return out
}

// utc is a time as it is shown; nil for none.
func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
