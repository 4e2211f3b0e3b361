package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// all pages through the VMs.
func (b *bench) all(p store.Page) []string {
	b.t.Helper()
	var names []string
	for {
		views, next, err := b.VMList(b.ctx, b.project, p)
		b.must(err)
		for _, v := range views {
			names = append(names, v.Intent.Name)
		}
		if next == nil {
			return names
		}
		p.AfterKey, p.AfterID = next.Key, &next.ID
	}
}

func TestVMList(t *testing.T) {
	b := newBench(t)
	n := b.node("n1", 64, 640*unit.GiB, 9000*unit.GiB)
	var made []string
	for i := range 11 {
		name := fmt.Sprintf("vm-%c", 'a'+(i*7)%11)
		made = append(made, name)
		if i < 4 {
			b.running(name, n.ID, 1)
		} else {
			b.vm(name)
		}
	}
	byName := slices.Sorted(slices.Values(made))
	reversed := slices.Clone(made)
	slices.Reverse(reversed)
	for _, c := range []struct {
		sort string
		want []string
	}{{"", byName}, {"name", byName}, {"created_at", made}, {"-created_at", reversed}} {
		for _, limit := range []int{1, 3, 11, 50} {
			if diff := cmp.Diff(c.want, b.all(store.Page{Limit: limit, Sort: c.sort})); diff != "" {
				t.Errorf("sort %q, limit %d (-want +got):\n%s", c.sort, limit, diff)
			}
		}
	}
	if got := b.all(store.Page{Limit: 3, Filters: map[string]string{"node": "n1"}}); len(got) != 4 {
		t.Errorf("on the node: %v", got)
	}
	if got := b.all(store.Page{Limit: 3, Filters: map[string]string{"name": "vm-c"}}); !slices.Equal(got, []string{"vm-c"}) {
		t.Errorf("by name: %v", got)
	}
	for p, code := range map[*store.Page]errs.Code{
		{Limit: 1, Sort: "memory; DROP TABLE vms"}:                          errs.InvalidFilter,
		{Limit: 1, Filters: map[string]string{"1=1) --": "x"}}:              errs.InvalidFilter,
		{Limit: 1, Sort: "created_at", AfterKey: "vm-a", AfterID: &id.ID{}}: errs.InvalidCursor,
	} {
		_, _, err := b.VMList(b.ctx, b.project, *p)
		wantCode(t, err, code)
	}
	if got, _, err := b.VMList(b.ctx, id.New(), store.Page{Limit: 5}); len(got) != 0 || err != nil {
		t.Errorf("another project sees %v, %v", got, err)
	}
}

// A page that was being read stays right while others come and go: nothing that
// was there all the while is skipped or repeated.
func TestPagesAreStable(t *testing.T) {
	b := newBench(t)
	for i := range 9 {
		b.vm(fmt.Sprint("keep", i))
	}
	p := store.Page{Limit: 2, Sort: "name"}
	var names []string
	for round := 0; ; round++ {
		views, next, err := b.VMList(b.ctx, b.project, p)
		b.must(err)
		for _, v := range views {
			if strings.HasPrefix(v.Intent.Name, "keep") {
				names = append(names, v.Intent.Name)
			}
		}
		if next == nil {
			break
		}
		p.AfterKey, p.AfterID = next.Key, &next.ID
		b.vm(fmt.Sprint("a", round)) // before the place
		b.vm(fmt.Sprint("keep4", round))
		v, _ := b.vm(fmt.Sprint("z", round))
		if round%2 == 0 {
			b.tx(func(t *store.Tx) error { return t.VMDelete(b.ctx, vm.View{Intent: v.Intent}, nil) })
		}
	}
	var want int
	for _, n := range names {
		if len(n) == len("keep0") {
			want++
		}
	}
	if want != 9 || !slices.IsSorted(names) {
		t.Errorf("%v", names)
	}
}

// The list is served by an index whatever the page: its cost does not grow with
// the number of VMs before it.
func TestListUsesIndex(t *testing.T) {
	b := newBench(t)
	_, err := b.db.App.Exec(b.ctx, `INSERT INTO vms (id, project_id, name, cpus, memory_bytes)
		SELECT gen_random_uuid(), $1, 'vm' || lpad(n::text, 6, '0'), 1, 1073741824 FROM generate_series(1, 20000) n`, b.project)
	b.must(err)
	if _, err := b.db.Owner.Exec(b.ctx, "ANALYZE vms"); err != nil {
		t.Fatal(err)
	}
	for _, sort := range []string{"name", "-name", "created_at", "-created_at"} {
		sql, args, err := store.VMListSQL(store.Page{Limit: 50, Sort: sort, AfterKey: middle(sort), AfterID: &id.ID{1}}, b.project)
		b.must(err)
		rows, err := b.db.App.Query(b.ctx, "EXPLAIN "+sql, args...)
		b.must(err)
		var plan []string
		for rows.Next() {
			var line string
			b.must(rows.Scan(&line))
			plan = append(plan, line)
		}
		b.must(rows.Err())
		text := strings.Join(plan, "\n")
		if strings.Contains(text, "Seq Scan on vms") || (strings.Contains(text, "Sort Key") && !strings.Contains(text, "Presorted")) {
			t.Errorf("sort %s:\n%s", sort, text)
		}
	}
}

func middle(sort string) string {
	if strings.HasSuffix(sort, "name") {
		return "vm010000"
	}
	return "80000000-0000-0000-0000-000000000000"
}
