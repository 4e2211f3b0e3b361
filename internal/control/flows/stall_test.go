package flows_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/sim"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// A guest that changes memory faster than it is sent comes to its end by what it is
// allowed to be answered with, in that order, or goes on where it is; the record tells what
// was done, when and why, and readers of events hear of it.
func TestStallsAreAnswered(t *testing.T) {
	busy := sim.Memory{Bytes: 8 * unit.MiB, Hot: 2 * unit.MiB, Rate: 10 * unit.MiB, Dirty: 20 * unit.MiB}
	for name, c := range map[string]struct {
		memory  sim.Memory
		options migration.Options
		want    job.State
		steps   string
		say     string
	}{
		"Converges":  {memory: sim.Memory{Bytes: unit.MiB, Hot: unit.MiB, Rate: 10 * unit.MiB, Dirty: unit.MiB}, want: job.Succeeded},
		"Throttle":   {memory: busy, options: migration.Options{Downtime: 100 * time.Millisecond}, want: job.Succeeded, steps: "throttle 40, throttle 70"},
		"Downtime":   {memory: busy, options: migration.Options{Downtime: 100 * time.Millisecond, OnStall: "downtime"}, want: job.Succeeded, steps: "downtime 200ms"},
		"GiveUp":     {memory: busy, options: migration.Options{Downtime: 50 * time.Millisecond, MaxDowntime: 100 * time.Millisecond, OnStall: "downtime,give_up"}, want: job.Failed, steps: "downtime 100ms, give_up", say: "it might be halted for 100ms"},
		"SilentEnds": {memory: sim.Memory{Bytes: unit.MiB}, options: migration.Options{OnStall: "throttle,give_up"}, want: job.Failed, steps: "give_up", say: "nothing has been sent for 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := runs(t)
			w.Nodes[0].Host.(*controltest.SimHost).SetFaults(id.Nil, sim.Faults{Memory: &c.memory})
			a, err := w.Service.MigrateVM(t.Context(), controltest.Admin(), w.name, migration.Request{Node: "n2", Options: c.options})
			if err == nil {
				err = w.Drive(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			j, err := w.Service.Job(t.Context(), *a.Job)
			if err != nil || j.State != c.want || !strings.Contains(j.ErrorMessage, c.say) {
				t.Errorf("%s %q %v", j.State, j.ErrorMessage, err)
			}
			w.stands(t, map[job.State]string{job.Succeeded: "n2", job.Failed: "n1"}[c.want], vm.Running)
			m, err := w.Service.Migration(t.Context(), *a.Job)
			if err != nil {
				t.Fatal(err)
			}
			var steps []string
			for _, e := range m.Escalations {
				steps = append(steps, stepName(e))
				if e.Reason == "" || e.Stall == "" || e.At.Before(m.CreatedAt) || e.At.After(*m.FinishedAt) {
					t.Errorf("%+v, of a migration from %v to %v", e, m.CreatedAt, *m.FinishedAt)
				}
			}
			if got := strings.Join(steps, ", "); got != c.steps && (c.steps == "" || c.want == job.Failed || !strings.HasPrefix(got, c.steps+", ")) {
				t.Errorf("%q was done, want %q", got, c.steps)
			}
		})
	}
}

func stepName(e migration.Escalation) string {
	switch e.Step {
	case migration.Throttle:
		return fmt.Sprint("throttle ", e.Throttle)
	case migration.Lengthen:
		return "downtime " + e.Downtime.String()
	}
	return string(e.Step)
}

// runs makes a cluster with a VM that runs on n1.
func runs(t *testing.T) *world {
	t.Helper()
	w := &world{Cluster: controltest.New(t, 2), name: "vm"}
	n := w.NewVM(w.name, true)
	n.Node = "n1"
	_, err := w.Service.CreateVM(t.Context(), controltest.Admin(), n)
	if err := finish(t.Context(), w, err); err != nil {
		t.Fatal(err)
	}
	return w
}

// How fast a guest changes memory is looked at before it is planned, and before it is
// moved, and stands in the record with when that was; where its node cannot tell, it is as
// it was when the guest was moved last.
func TestPlansAreSampled(t *testing.T) {
	w := runs(t)
	host, ok := w.Nodes[0].Host.(*controltest.SimHost)
	if !ok {
		t.Fatal("no simulated host")
	}
	plan := func() migration.Plan {
		t.Helper()
		p, err := w.Service.PlanMigration(t.Context(), controltest.Admin(), w.name, migration.Request{Node: "n2"})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := plan(); p.From != migration.Sampled || p.SampledAt.IsZero() || p.DirtyRate != 0 || p.Converges != migration.Converging {
		t.Errorf("of an idle guest: %+v", p.Prediction)
	}
	host.SetFaults(id.Nil, sim.Faults{Memory: &sim.Memory{Bytes: unit.MiB, Hot: unit.GiB, Rate: unit.GiB, Dirty: 500 * unit.MiB}})
	if p := plan(); p.DirtyRate != 500*unit.MiB || p.Converges != migration.Slowed {
		t.Errorf("of a busy one: %+v", p.Prediction)
	}
	a, err := w.Service.MigrateVM(t.Context(), controltest.Admin(), w.name, migration.Request{Node: "n2"})
	if err := finish(t.Context(), w, err); err != nil {
		t.Fatal(err)
	}
	m, err := w.Service.Migration(t.Context(), *a.Job)
	if err != nil || m.State != migration.Succeeded || m.Predicted.From != migration.Sampled || m.Predicted.DirtyRate != 500*unit.MiB || m.Predicted.SampledAt.IsZero() {
		t.Errorf("%s %+v %v", m.State, m.Predicted, err)
	}
	// back at once: nobody waits for another look at the same guest
	a, err = w.Service.MigrateVM(t.Context(), controltest.Admin(), w.name, migration.Request{Node: "n1"})
	if err := finish(t.Context(), w, err); err != nil {
		t.Fatal(err)
	}
	back, err := w.Service.Migration(t.Context(), *a.Job)
	if err != nil || back.Predicted.From != migration.Sampled || !back.Predicted.SampledAt.Equal(m.Predicted.SampledAt) || back.Predicted.DirtyRate != m.Predicted.DirtyRate {
		t.Errorf("%+v, and before %+v %v", back.Predicted, m.Predicted, err)
	}
	// of one that is halted, nothing is known that was so while it executed
	_, err = ask(vm.Pause)(t.Context(), w, w.name)
	if err := finish(t.Context(), w, err); err != nil {
		t.Fatal(err)
	}
	a, err = w.Service.MigrateVM(t.Context(), controltest.Admin(), w.name, migration.Request{Node: "n2"})
	if err := finish(t.Context(), w, err); err != nil {
		t.Fatal(err)
	}
	if halted, err := w.Service.Migration(t.Context(), *a.Job); err != nil || halted.Predicted.From == migration.Sampled {
		t.Errorf("of one that is halted: %+v %v", halted.Predicted, err)
	}
	w.Nodes[1].SetDown(true)
	p, err := w.Service.PlanMigration(t.Context(), controltest.Admin(), w.name, migration.Request{})
	if err == nil && p.From == migration.Sampled {
		t.Errorf("nobody could have looked: %+v", p.Prediction)
	}
	w.Nodes[1].SetDown(false)
}
