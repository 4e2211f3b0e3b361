package prove

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Subject is a flow to be proved.
type Subject[E any] struct {
	Flow workflow.Flow[E]
	// World makes a world: a fresh database and environment. Cleaning up is
	// tb.Cleanup's.
	World func(tb testing.TB) World[E]
	// Reuse says that one world serves all runs, one after another: Start then
	// makes a new target each time. It saves making worlds; use it where a run
	// that went wrong cannot hide the faults of the next.
	Reuse bool
	// Limit is how long one run may take; 30 s by default.
	Limit time.Duration
}

// World is where one run of the flow happens.
type World[E any] struct {
	// Pool is the application's.
	Pool *pgxpool.Pool
	Env  E
	// Start makes what the job needs and enqueues it.
	Start func(ctx context.Context) (id.ID, error)
	// Accept has Start hand its job to this executor from now on; nil for none. May
	// be nil: then the flow is proved as one that others accept.
	Accept func(e *workflow.Executor)
	// Settle waits until the environment is quiet, before the checks; may be nil.
	Settle func(ctx context.Context) error
	// Check tells what is wrong after the job ended in the state.
	Check func(ctx context.Context, which id.ID, end job.State) error
	// Leftovers lists what is on the host and belongs to no object: processes,
	// cgroups, files, interfaces. Read from the host.
	Leftovers func(ctx context.Context) ([]string, error)
}

// Combination is one way to disturb a run.
type Combination struct {
	// Name tells it, as in "kill after do of start".
	Name string
	// Want is how the job must end.
	Want job.State

	twice   bool
	disturb disturbance
	// accepted by the server that runs it
	accepted bool
}

// Prove runs every combination as a subtest and gives their names.
func Prove[E any](t *testing.T, s Subject[E]) []string {
	t.Helper()
	if err := s.Flow.Validate(); err != nil {
		t.Fatal(err)
	}
	var shared *World[E]
	var ran []string
	for _, c := range Combinations(s.Flow) {
		ok := t.Run(strings.ReplaceAll(c.Name, " ", "_"), func(t *testing.T) {
			w := shared
			if w == nil {
				tb := testing.TB(t)
				fresh := s.World(tb)
				w = &fresh
			}
			if c.accepted && w.Accept == nil {
				return
			}
			for _, finding := range run(s, *w, c) {
				t.Error(finding)
			}
		})
		ran = append(ran, c.Name)
		if !ok && shared != nil {
			t.Fatalf("the shared world is no longer clean: %d combinations not run", len(Combinations(s.Flow))-len(ran))
		}
		if s.Reuse && shared == nil {
			fresh := s.World(t)
			shared = &fresh
		}
	}
	t.Logf("%s: %d combinations: %s", s.Flow.Name, len(ran), strings.Join(ran, "; "))
	return ran
}

// Combinations lists every way a flow is to be disturbed.
func Combinations[E any](f workflow.Flow[E]) []Combination {
	out := []Combination{
		{Name: "undisturbed", Want: job.Succeeded},
		{Name: "every do twice", Want: job.Succeeded, twice: true},
	}
	out = append(out, failures(f)...)
	out = append(out, kills(f)...)
	out = append(out, cancels(f)...)
	return append(out, accepted(f)...)
}

// accepted are the ways to disturb a server that accepts the job itself.
func accepted[E any](f workflow.Flow[E]) []Combination {
	out := []Combination{
		{Name: "accepted here", Want: job.Succeeded},
		{Name: "accepted here, every do twice", Want: job.Succeeded, twice: true},
	}
	for _, m := range []workflow.Moment{workflow.BeforeDo, workflow.AfterDo} {
		for _, s := range f.Steps {
			out = append(out, Combination{
				Name: "accepted here, kill " + string(m) + " of " + s.Name, Want: job.Succeeded,
				disturb: disturbance{kill: &at{moment: m, step: s.Name}},
			})
		}
		want, first := job.Failed, f.Steps[0]
		if turning(f) < 0 {
			want = job.Succeeded
		}
		out = append(out, Combination{
			Name: "accepted here, fail " + string(m) + " of " + first.Name, Want: want,
			disturb: disturbance{fail: &at{moment: m, step: first.Name}},
		})
	}
	for i := range out {
		out[i].accepted = true
	}
	return out
}

// turning is the position of the last step from which the job still unwinds;
// -1 if there is none.
func turning[E any](f workflow.Flow[E]) int {
	for i, s := range f.Steps {
		if s.NoReturn {
			return i - 1
		}
	}
	return len(f.Steps) - 1
}

func failures[E any](f workflow.Flow[E]) []Combination {
	var out []Combination
	turn := turning(f)
	for i, s := range f.Steps {
		want := job.Failed
		if i > turn {
			want = job.Succeeded
		}
		for _, m := range []workflow.Moment{workflow.BeforeDo, workflow.AfterDo} {
			out = append(out, Combination{
				Name: "fail " + string(m) + " of " + s.Name, Want: want,
				disturb: disturbance{fail: &at{moment: m, step: s.Name}},
			})
		}
		if i <= turn {
			out = append(out, Combination{
				Name: "fail after do of " + s.Name + ", every undo twice", Want: want, twice: true,
				disturb: disturbance{fail: &at{moment: workflow.AfterDo, step: s.Name}},
			})
		}
	}
	return out
}

func kills[E any](f workflow.Flow[E]) []Combination {
	var out []Combination
	kill := func(want job.State, m workflow.Moment, step string, fail *at) {
		name := "kill " + string(m)
		if step != "" {
			name += " of " + step
		}
		if fail != nil && step == "" {
			name += " of unwinding"
		}
		out = append(out, Combination{Name: name, Want: want, disturb: disturbance{fail: fail, kill: &at{moment: m, step: step}}})
	}
	for _, s := range f.Steps {
		kill(job.Succeeded, workflow.BeforeDo, s.Name, nil)
		kill(job.Succeeded, workflow.AfterDo, s.Name, nil)
	}
	kill(job.Succeeded, workflow.BeforeFinish, "", nil)
	kill(job.Succeeded, workflow.AfterFinish, "", nil)
	turn := turning(f)
	if turn < 0 {
		return out
	}
	fail := &at{moment: workflow.AfterDo, step: f.Steps[turn].Name}
	for i := turn; i >= 0; i-- {
		if f.Steps[i].Undo != nil {
			kill(job.Failed, workflow.BeforeUndo, f.Steps[i].Name, fail)
			kill(job.Failed, workflow.AfterUndo, f.Steps[i].Name, fail)
		}
	}
	kill(job.Failed, workflow.BeforeFinish, "", fail)
	kill(job.Failed, workflow.AfterFinish, "", fail)
	return out
}

func cancels[E any](f workflow.Flow[E]) []Combination {
	var out []Combination
	for _, s := range f.Steps {
		if !s.Cancellable {
			continue
		}
		for _, m := range []workflow.Moment{workflow.BeforeDo, workflow.AfterDo} {
			out = append(out, Combination{
				Name: "cancel " + string(m) + " of " + s.Name, Want: job.Cancelled,
				disturb: disturbance{cancel: &at{moment: m, step: s.Name}},
			})
		}
	}
	return out
}
