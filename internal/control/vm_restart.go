package control

import (
	"context"

	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Restarted is what one look at ended VMs did.
type Restarted struct {
	// Noted ends are restarted later, or not any more; Started were just now.
	Noted   int `json:"noted"`
	Started int `json:"started"`
}

// mostRestarts bounds one look: after an outage of the control plane, what ended
// meanwhile does not start all at once.
const mostRestarts = 50

// RestartEnded starts VMs again whose guests ended by themselves, as their restart
// policies say. Each is decided under its row's lock, so that nobody decides
// otherwise meanwhile.
func (s *Service) RestartEnded(ctx context.Context, b vm.Backoff) (Restarted, error) {
	var out Restarted
	due, err := s.cfg.Store.RestartsDue(ctx, s.cfg.Live.AllReporting(), mostRestarts)
	if err != nil {
		return out, err
	}
	for _, v := range due {
		did := vm.RestartNothing
		err := s.change(ctx, func(tx *store.Tx) (err error) {
			did, err = s.restartOne(ctx, tx, v, b)
			return err
		})
		switch {
		case errs.Is(err, errs.NotFound), errs.Is(err, errs.VMBusy), errs.Is(err, errs.RecoveryHold):
			continue // deleted, taken or held meanwhile
		case err != nil:
			return out, err
		case did == vm.RestartNote:
			out.Noted++
		case did == vm.RestartStart:
			out.Started++
		}
	}
	return out, nil
}

func (s *Service) restartOne(ctx context.Context, tx *store.Tx, ref id.ID, b vm.Backoff) (vm.RestartAction, error) {
	v, err := tx.VMGet(ctx, s.cfg.Project, ref.String())
	if err != nil {
		return vm.RestartNothing, err
	}
	s.judge(&v)
	action, next := v.PlanRestart(tx.Now, b)
	if action == vm.RestartNothing {
		return action, nil
	}
	if err := tx.RestartsPut(ctx, v.Intent, next); err != nil || action == vm.RestartNote {
		return action, err
	}
	who := Caller{}
	who.Name, who.Role = "vm-restarts", "reconciler"
	j := workflow.NewJob{ID: id.New(), Kind: vm.JobStart, Params: flows.StartParams{ByPolicy: true}, Cancellable: true}
	_, err = s.beginStart(ctx, tx, who, v, j, map[string]any{"reason": next.Reason, "in_a_row": next.InARow})
	return action, err
}
