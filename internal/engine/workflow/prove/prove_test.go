package prove

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/id"
)

// host is an environment: named things that exist, and how often each was made.
type host struct {
	mu     sync.Mutex
	things map[string]int
}

func (h *host) put(name string) { h.mu.Lock(); h.things[name] = 1; h.mu.Unlock() }
func (h *host) add(name string) { h.mu.Lock(); h.things[name]++; h.mu.Unlock() }
func (h *host) del(name string) { h.mu.Lock(); delete(h.things, name); h.mu.Unlock() }

func (h *host) list() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for name, n := range h.things {
		out = append(out, fmt.Sprintf("%s*%d", name, n))
	}
	sort.Strings(out)
	return out
}

type hostRun = workflow.Run[*host]

// made is a step that makes a thing and, undone, removes it.
func made(name string) workflow.Step[*host] {
	return workflow.Step[*host]{
		Name: name,
		Do:   func(_ context.Context, r *hostRun) (any, error) { r.Env.put(name); return name, nil },
		Undo: func(_ context.Context, r *hostRun) error { r.Env.del(name); return nil },
	}
}

func good() workflow.Flow[*host] {
	disk, tap := made("disk"), made("tap")
	disk.Cancellable = true
	return workflow.Flow[*host]{
		Name: "good",
		Steps: []workflow.Step[*host]{
			disk, tap,
			{Name: "look", Do: func(context.Context, *hostRun) (any, error) { return nil, nil }},
			{Name: "start", NoReturn: true, Do: func(_ context.Context, r *hostRun) (any, error) { r.Env.put("process"); return nil, nil }},
			{Name: "tell", Do: func(context.Context, *hostRun) (any, error) { return nil, nil }},
		},
	}
}

func subject(f workflow.Flow[*host], reuse bool) Subject[*host] {
	return Subject[*host]{
		Flow: f, Reuse: reuse,
		World: func(tb testing.TB) World[*host] {
			db, h := storetest.New(tb), &host{things: map[string]int{}}
			var last job.State
			return World[*host]{
				Pool: db.App, Env: h,
				Start: func(ctx context.Context) (id.ID, error) {
					h.mu.Lock()
					h.things = map[string]int{}
					h.mu.Unlock()
					which := id.New()
					return which, pgtx.Run(ctx, db.App, func(tx pgx.Tx) error {
						return workflow.Enqueue(ctx, tx, workflow.NewJob{
							ID: which, Kind: f.Name, CreatedBy: "test", Cancellable: f.FirstCancellable(),
							Target: workflow.Target{Kind: "thing", ID: id.New(), Name: "x"},
						})
					})
				},
				Check: func(_ context.Context, _ id.ID, end job.State) error {
					last = end
					if end != job.Succeeded {
						return nil
					}
					if got := strings.Join(h.list(), " "); got != "disk*1 process*1 tap*1" {
						return fmt.Errorf("the host has %s", got)
					}
					return nil
				},
				Leftovers: func(context.Context) ([]string, error) {
					if last == job.Succeeded {
						return nil, nil
					}
					return h.list(), nil
				},
			}
		},
	}
}

func TestGoodFlow(t *testing.T) {
	ran := Prove(t, subject(good(), true))
	for _, want := range []string{
		"undisturbed", "every do twice", "fail after do of look", "fail before do of tell", "fail after do of tap, every undo twice",
		"kill after do of start", "kill after undo of disk", "kill after finish", "kill before finish of unwinding",
		"cancel before do of disk", "cancel after do of disk",
	} {
		found := false
		for _, name := range ran {
			found = found || name == want
		}
		if !found {
			t.Errorf("%q did not run", want)
		}
	}
}

// Planted bugs: each must be found, in the combinations that show it.
func TestBadFlowsAreFound(t *testing.T) {
	cases := []struct {
		name  string
		spoil func(f *workflow.Flow[*host])
		in    string // a combination that must find it
		says  string
	}{
		{"a step that is not idempotent", func(f *workflow.Flow[*host]) {
			f.Steps[0].Do = func(_ context.Context, r *hostRun) (any, error) { r.Env.add("disk"); return nil, nil }
		}, "kill after do of disk", "disk*2"},
		{"a step that is not idempotent, by running twice", func(f *workflow.Flow[*host]) {
			f.Steps[0].Do = func(_ context.Context, r *hostRun) (any, error) { r.Env.add("disk"); return nil, nil }
		}, "every do twice", "disk*2"},
		{"a missing undo", func(f *workflow.Flow[*host]) { f.Steps[1].Undo = nil }, "fail after do of look", "tap*1"},
		{"an undo that trusts its step to have failed cleanly", func(f *workflow.Flow[*host]) {
			f.Steps[1].Undo = func(_ context.Context, r *hostRun) error {
				if _, ok, _ := workflow.Output[string](r, "tap"); ok {
					r.Env.del("tap")
				}
				return nil
			}
		}, "fail after do of tap", "tap*1"},
		{"an undo that cannot run twice", func(f *workflow.Flow[*host]) {
			f.Steps[0].Undo = func(_ context.Context, r *hostRun) error {
				if len(r.Env.list()) == 0 {
					return fmt.Errorf("the disk is gone")
				}
				r.Env.del("disk")
				return nil
			}
		}, "kill after undo of disk", "needs attention"},
		{"an irreversible effect before the point of no return", func(f *workflow.Flow[*host]) {
			f.Steps[3].NoReturn = false
		}, "fail after do of start", "process*1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := good()
			c.spoil(&f)
			s := subject(f, false)
			for _, combination := range Combinations(f) {
				if combination.Name != c.in {
					continue
				}
				found := strings.Join(run(s, s.World(t), combination), "; ")
				if !strings.Contains(found, c.says) {
					t.Errorf("%s: found %q, want %q", c.in, found, c.says)
				}
				return
			}
			t.Errorf("no combination is called %q", c.in)
		})
	}
}

// A proof whose disturbance never came proves nothing, and says so.
func TestDisturbanceMustHappen(t *testing.T) {
	f := good()
	s := subject(f, false)
	found := strings.Join(run(s, s.World(t), Combination{
		Name: "x", Want: job.Succeeded, disturb: disturbance{kill: &at{moment: workflow.BeforeUndo, step: "disk"}},
	}), "; ")
	if !strings.Contains(found, "never killed") {
		t.Errorf("found %q", found)
	}
}
