package store_test

import (
	"testing"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// A relay is granted to one node, to one other, for one ticket, until its job has ended;
// that a migration was relayed is on record, and readers of events hear of it once.
func TestRelayGrants(t *testing.T) {
	b := newBench(t)
	n1, n2 := b.node("n1", 8, 8*unit.GiB, 900*unit.GiB), b.node("n2", 8, 8*unit.GiB, 900*unit.GiB)
	m, _ := b.moving(b.running("web", n1.ID, 1), migration.Live, n1, n2)
	events := b.events("migration.updated")
	b.tx(func(t *store.Tx) error {
		for range 2 { // a step may run twice
			if err := t.RelayGrant(b.ctx, "ticket", n1.ID, n2.ID, m.ID); err != nil {
				return err
			}
			if err := t.MigrationRelayed(b.ctx, m.ID); err != nil {
				return err
			}
		}
		return nil
	})
	granted := func(ticket string, back bool) bool {
		from, to := n1.ID, n2.ID
		if back {
			from, to = to, from
		}
		ok, err := b.RelayGranted(b.ctx, ticket, from, to)
		b.must(err)
		return ok
	}
	if !granted("ticket", false) || granted("another", false) || granted("ticket", true) {
		t.Errorf("granted %v, another ticket %v, the other way %v", granted("ticket", false), granted("another", false), granted("ticket", true))
	}
	got, err := b.MigrationGet(b.ctx, b.project, m.ID)
	b.must(err)
	if n := b.events("migration.updated") - events; !got.Relayed || n != 1 {
		t.Errorf("relayed %v, with %d events", got.Relayed, n)
	}
	if _, err := b.Pool().Exec(b.ctx, "UPDATE jobs SET state = 'succeeded', finished_at = now() WHERE id = $1", m.ID); err != nil {
		t.Fatal(err)
	}
	if granted("ticket", false) {
		t.Error("granted after its job has ended")
	}
	other, _ := b.moving(b.running("db", n1.ID, 1), migration.Live, n1, n2)
	b.tx(func(t *store.Tx) error { return t.RelayGrant(b.ctx, "next", n1.ID, n2.ID, other.ID) })
	var left int
	b.must(b.Pool().QueryRow(b.ctx, "SELECT count(*) FROM relay_grants").Scan(&left))
	if left != 1 {
		t.Errorf("%d grants are kept, and one job is under way", left)
	}
}
