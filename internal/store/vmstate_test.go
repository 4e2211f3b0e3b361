package store_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// pick gives one of several.
func pick[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

// anyRows puts VMs into the database as no program would: each column as chance
// has it, within what the schema allows.
func (b *bench) anyRows(r *rand.Rand, n int, nodes []id.ID) {
	b.t.Helper()
	batch := &pgx.Batch{}
	for i := range n {
		v := id.New()
		epoch := r.IntN(4)
		var node, lost, job *id.ID
		switch r.IntN(5) {
		case 0:
		case 1:
			lost = &nodes[r.IntN(len(nodes))]
		default:
			node = &nodes[r.IntN(len(nodes))]
		}
		if r.IntN(3) > 0 {
			j := id.New()
			job = &j
			state := pick(r, "queued", "waiting", "running", "unwinding", "needs_attention")
			batch.Queue(`INSERT INTO jobs (id, project_id, kind, target_kind, target_id, target_name, state, params, created_by,
				error_code, error_message, unwind_code, unwind_message)
				VALUES ($1, $2, $3, 'vm', $4, 'x', $5::text::job_state, '{}', 'test',
				CASE WHEN $5::text = 'needs_attention' THEN 'x' END, CASE WHEN $5::text = 'needs_attention' THEN 'why' END,
				CASE WHEN $5::text = 'unwinding' THEN 'x' END, CASE WHEN $5::text = 'unwinding' THEN 'why' END)`,
				j, b.project, pick(r, append(vm.JobKinds(), "vm.other")...), pick(r, v, v, id.New()), state)
		}
		batch.Queue(`INSERT INTO vms (id, project_id, name, cpus, memory_bytes, power, node_id, owner_epoch, deleting, job_id,
			failure_code, failure_message, failed_at, lost_node_id, lost_at)
			VALUES ($1, $2, $3, 1, 1073741824, $4::text::vm_power, $5, $6, $7, $8,
			CASE WHEN $9::bool THEN 'x' END, CASE WHEN $9::bool THEN 'why' END, CASE WHEN $9::bool THEN now() END,
			$10::uuid, CASE WHEN $10::uuid IS NOT NULL THEN now() END)`,
			v, b.project, fmt.Sprintf("vm-%05d", i), pick(r, "on", "off"), node, epoch, r.IntN(8) == 0, job, r.IntN(3) == 0, lost)
		// incarnations of before, of now, and of a future the database has forgotten
		for e := range 5 {
			if e > 0 && r.IntN(3) == 0 {
				batch.Queue(`INSERT INTO instances (vm_id, owner_epoch, node_id, node_epoch, report_seq, phase, since)
					VALUES ($1, $2, $3, 1, 1, $4::text::vm_phase, now())`, v, e, pick(r, nodes...), string(pick(r, vm.Phases()...)))
			}
		}
	}
	tx, err := b.db.Owner.Begin(b.ctx)
	b.must(err)
	b.must(tx.SendBatch(b.ctx, batch).Close())
	b.must(tx.Commit(b.ctx))
}

// byState lists names by what VMs appear as, computed by the domain.
func (b *bench) byState(reporting store.Judged) map[vm.State][]string {
	b.t.Helper()
	out := map[vm.State][]string{}
	p := store.Page{Limit: 1000}
	for {
		views, next, err := b.VMList(b.ctx, b.project, p)
		b.must(err)
		for _, v := range views {
			if v.Node != nil {
				v.Node.Reporting = slices.Contains(reporting.Reporting, v.Node.ID)
				v.Node.Held = reporting.AllHeld || slices.Contains(reporting.Held, v.Node.ID)
			}
			s := vm.Appear(v).State
			out[s] = append(out[s], v.Intent.Name)
		}
		if next == nil {
			return out
		}
		p.AfterKey, p.AfterID = next.Key, &next.ID
	}
}

// inState lists names by the filter, in pages.
func (b *bench) inState(filter string, reporting store.Judged) []string {
	b.t.Helper()
	var out []string
	p := store.Page{Limit: 97, Filters: map[string]string{"state": filter}}
	for {
		views, next, err := b.VMListByState(b.ctx, b.project, p, reporting)
		b.must(err)
		for _, v := range views {
			out = append(out, v.Intent.Name)
		}
		if next == nil {
			return out
		}
		if len(views) != p.Limit {
			b.t.Errorf("a page of %d has %d and is not the last", p.Limit, len(views))
		}
		p.AfterKey, p.AfterID = next.Key, &next.ID
	}
}

// The database's expression and the domain's function say the same of every VM,
// whoever reports.
func TestStateInTheDatabaseIsAppear(t *testing.T) {
	b := newBench(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	var nodes []id.ID
	for i := range 4 {
		nodes = append(nodes, b.node(fmt.Sprint("n", i), 64, 640*unit.GiB, 9000*unit.GiB).ID)
	}
	b.anyRows(r, 4000, nodes)
	seen := map[vm.State]bool{}
	for _, reporting := range []store.Judged{{}, {Reporting: nodes}, {Reporting: nodes[:2]}, {Reporting: nodes[3:], Held: nodes[2:]}, {Reporting: nodes, AllHeld: true}} {
		want := b.byState(reporting)
		for _, s := range vm.States() {
			if diff := cmp.Diff(want[s], b.inState(string(s), reporting)); diff != "" {
				t.Errorf("%s, %d nodes report (-Appear +database):\n%s", s, len(reporting.Reporting), diff)
			}
			seen[s] = seen[s] || len(want[s]) > 0
		}
		two := append(slices.Clone(want[vm.Stopped]), want[vm.Unknown]...)
		slices.Sort(two)
		if diff := cmp.Diff(two, b.inState("stopped,unknown", reporting)); diff != "" {
			t.Errorf("two states:\n%s", diff)
		}
	}
	for _, s := range vm.States() {
		if never := s == vm.Restoring; seen[s] == never {
			t.Errorf("%s among the random rows: %v", s, seen[s])
		}
	}
}

func TestFilters(t *testing.T) {
	b := newBench(t)
	n := b.node("n1", 64, 640*unit.GiB, 9000*unit.GiB)
	b.node("n2", 64, 640*unit.GiB, 9000*unit.GiB)
	b.running("web-1", n.ID, 1)
	b.running("web-2", n.ID, 1)
	b.vm("db")
	b.tx(func(tx *store.Tx) error {
		for name, labels := range map[string]map[string]string{"web-1": {"tier": "web", "env": "prod"}, "web-2": {"tier": "web"}, "db": {"tier": "data", "env": "prod"}} {
			v, err := tx.VMGet(b.ctx, b.project, name)
			if err != nil {
				return err
			}
			v.Intent.Labels = labels
			if err := tx.VMUpdate(b.ctx, v.Intent, name); err != nil {
				return err
			}
		}
		return nil
	})
	for _, c := range []struct {
		filter, value string
		want          []string
	}{
		{"name", "web-1", []string{"web-1"}},
		{"name", "web-*", []string{"web-1", "web-2"}},
		{"name", "db,web-2", []string{"db", "web-2"}},
		{"name", "d*,web-2", []string{"db", "web-2"}},
		{"name", "*", []string{"db", "web-1", "web-2"}},
		{"name", "web", nil},
		{"name", "w_b*", nil},
		{"name", "%", nil},
		{"node", "n1", []string{"web-1", "web-2"}},
		{"node", "n1,n2", []string{"web-1", "web-2"}},
		{"node", "none-such", nil},
		{"label", "tier", []string{"db", "web-1", "web-2"}},
		{"label", "tier=web", []string{"web-1", "web-2"}},
		{"label", "tier=web,env=prod", []string{"web-1"}},
		{"label", "env", []string{"db", "web-1"}},
		{"label", "tier=", nil},
		{"label", `tier="} OR true --`, nil},
		{"label", "web", nil},
	} {
		if diff := cmp.Diff(c.want, b.all(store.Page{Limit: 2, Filters: map[string]string{c.filter: c.value}})); diff != "" {
			t.Errorf("%s=%s (-want +got):\n%s", c.filter, c.value, diff)
		}
	}
	for filter, value := range map[string]string{"name": "a*b", "node": "n1,", "label": "=web", "state": "runnng", "image": ""} {
		_, _, err := b.VMListByState(b.ctx, b.project, store.Page{Limit: 1, Filters: map[string]string{filter: value}}, store.Judged{})
		wantCode(t, err, errs.InvalidFilter)
		if f := errs.As(err).Fields; len(f) != 1 || f[0].Pointer != filter {
			t.Errorf("%s=%s: %+v", filter, value, f)
		}
	}
	_, _, err := b.VMListByState(b.ctx, b.project, store.Page{Limit: 1, Filters: map[string]string{"state": "runnng"}}, store.Judged{})
	if err == nil || !strings.Contains(err.Error(), `state: there is no state "runnng"; did you mean "running"?; there are: pending, `) {
		t.Errorf("%v", err)
	}
}

// Every sort pages through everything, forth and back.
func TestSorts(t *testing.T) {
	b := newBench(t)
	n := b.node("n1", 64, 640*unit.GiB, 9000*unit.GiB)
	for i := range 9 {
		name := fmt.Sprint("vm-", i)
		if i%2 == 0 {
			b.running(name, n.ID, 1)
		} else {
			b.vm(name)
		}
		_, err := b.db.Owner.Exec(b.ctx, "UPDATE vms SET cpus = $1, memory_bytes = $2 WHERE name = $3", 1+i%3, (1+int64(i%4))*unit.GiB, name)
		b.must(err)
	}
	for _, sort := range []string{"name", "created_at", "cpus", "memory_bytes", "node"} {
		up, down := b.all(store.Page{Limit: 2, Sort: sort}), b.all(store.Page{Limit: 4, Sort: "-" + sort})
		slices.Reverse(down)
		if len(up) != 9 || !slices.Equal(up, down) {
			t.Errorf("sorted by %s: %v, and reversed twice %v", sort, up, down)
		}
	}
}

// The audit log is read in pages, to its very beginning.
func TestAuditPages(t *testing.T) {
	b := newBench(t)
	for i := range 9 {
		_, err := b.db.Owner.Exec(b.ctx, `INSERT INTO audit_log (seq, hash, principal, role, origin, action, object_kind, object_name, outcome)
			VALUES ($1, '\x00', $2, 'administrator', 'test', 'vm.start', 'vm', 'web', 'accepted')`, i+1, pick(rand.New(rand.NewPCG(1, uint64(i))), "ann", "bob"))
		b.must(err)
	}
	for sort, want := range map[string][]int64{"": {9, 8, 7, 6, 5, 4, 3, 2, 1}, "seq": {1, 2, 3, 4, 5, 6, 7, 8, 9}} {
		var got []int64
		p := store.Page{Limit: 2, Sort: sort}
		for {
			records, next, err := b.AuditList(b.ctx, p)
			b.must(err)
			for _, r := range records {
				got = append(got, r.Seq)
			}
			if next == nil {
				break
			}
			p.AfterKey, p.AfterID = next.Key, &next.ID
		}
		if !slices.Equal(got, want) {
			t.Errorf("sort %q: %v", sort, got)
		}
	}
	ann, _, err := b.AuditList(b.ctx, store.Page{Limit: 9, Filters: map[string]string{"principal": "ann", "action": "vm.start,vm.stop"}})
	bob, _, err2 := b.AuditList(b.ctx, store.Page{Limit: 9, Filters: map[string]string{"principal": "bob", "object": "we*"}})
	if err != nil || err2 != nil || len(ann) == 0 || len(bob) == 0 || len(ann)+len(bob) != 9 {
		t.Errorf("by principal: %d and %d, %v %v", len(ann), len(bob), err, err2)
	}
}
