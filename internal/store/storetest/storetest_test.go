package storetest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/store/migrations"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func TestNewIsMigratedAndAlone(t *testing.T) {
	ctx := context.Background()
	a, b := New(t), New(t)
	const add = `INSERT INTO organizations (id, name) VALUES (gen_random_uuid(), 'one')`
	for _, db := range []*DB{a, b} {
		if _, err := db.App.Exec(ctx, add); err != nil {
			t.Fatal(err)
		}
		if err := migrations.Check(ctx, db.App); err != nil {
			t.Error(err)
		}
	}
	var who string
	if err := a.App.QueryRow(ctx, "SELECT session_user || ' ' || current_user").Scan(&who); err != nil {
		t.Fatal(err)
	}
	if who != "novacron_server novacron_server" {
		t.Errorf("the application is %s", who)
	}
}

// The application can neither change the schema nor rewrite history.
func TestApplicationRole(t *testing.T) {
	ctx, db := context.Background(), New(t)
	const add = `INSERT INTO audit_log (principal, role, origin, action, object_kind, outcome)
		VALUES ('a', 'b', 'c', 'd', 'e', 'accepted')`
	if _, err := db.App.Exec(ctx, add); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"CREATE TABLE x (id int)",
		"ALTER TABLE vms ADD COLUMN x int",
		"DELETE FROM audit_log",
		"TRUNCATE audit_log",
		"UPDATE audit_log SET principal = 'other'",
		"UPDATE audit_log SET seq = 1, hash = '\\x00', principal = 'other'",
		"DELETE FROM goose_db_version",
		"SET session_authorization = postgres",
	} {
		if _, err := db.App.Exec(ctx, sql); err == nil {
			t.Errorf("%s: allowed", sql)
		}
	}
	if _, err := db.Owner.Exec(ctx, "UPDATE audit_log SET principal = 'other'"); err == nil || !strings.Contains(err.Error(), "append-only") {
		t.Errorf("even the owner: %v", err)
	}
}

func TestMigrate(t *testing.T) {
	ctx, db := context.Background(), Empty(t)
	// several servers start at once
	done := make(chan error)
	for range 3 {
		go func() { done <- migrations.Up(ctx, db.OwnerURL) }()
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	once := schema(t, db)
	if err := migrations.Up(ctx, db.OwnerURL); err != nil {
		t.Fatal(err)
	}
	if again := schema(t, db); again != once {
		t.Error("migrating twice changed the schema")
	}
	if fresh := schema(t, New(t)); fresh != once {
		t.Error("the template's schema differs from a fresh one")
	}

	if _, err := db.Owner.Exec(ctx, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)"); err != nil {
		t.Fatal(err)
	}
	err := migrations.Up(ctx, db.OwnerURL)
	if !errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "99999") {
		t.Errorf("a newer database: %v", err)
	}
}

// schema prints everything the catalogue knows of the public schema.
func schema(t *testing.T, db *DB) string {
	t.Helper()
	var out string
	err := db.Owner.QueryRow(context.Background(), `
		SELECT string_agg(line, E'\n' ORDER BY line) FROM (
			SELECT format('%s.%s %s %s %s', table_name, column_name, udt_name, is_nullable, column_default) AS line
			FROM information_schema.columns WHERE table_schema = 'public'
			UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
			UNION ALL SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
			FROM pg_constraint WHERE connamespace = 'public'::regnamespace
			UNION ALL SELECT tgrelid::regclass || ' ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
			UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
			UNION ALL SELECT t.typname || ' ' || e.enumlabel FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid
			UNION ALL SELECT grantee || ' ' || table_name || ' ' || privilege_type
			FROM information_schema.role_table_grants WHERE table_schema = 'public') x`).Scan(&out)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCloneIsCheap(t *testing.T) {
	New(t) // server and template
	c := clock.System{}
	began := c.Boot()
	const n = 5
	for range n {
		New(t)
	}
	t.Logf("%v per database", ((c.Boot() - began) / n).Round(time.Millisecond))
}
