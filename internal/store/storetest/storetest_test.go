package storetest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

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

// A migration whose server is killed half-way, as the database sees it, leaves whole
// steps: until it is done the application is refused by name, and the next server goes
// on where it ended.
func TestMigrationBrokenOff(t *testing.T) {
	ctx, db := context.Background(), Empty(t)
	look, err := pgx.Connect(ctx, db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close(ctx)
	broken := 0
	for step := range migrations.Newest() {
		done := make(chan error, 1)
		go func() { done <- migrations.Up(ctx, db.OwnerURL) }()
		kill(t, look, step, done)
		if err := <-done; err == nil {
			continue // it was faster
		}
		broken++
		if version(t, look) == 0 {
			continue // nothing to look at yet
		}
		if err := migrations.Check(ctx, look); version(t, look) < migrations.Newest() &&
			(!errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "migrate it first")) {
			t.Errorf("half-way, at version %d: %v", version(t, look), err)
		}
	}
	if broken == 0 {
		t.Error("no migration was broken off: this shows nothing")
	}
	if err := migrations.Up(ctx, db.OwnerURL); err != nil {
		t.Fatalf("after %d that broke off: %v", broken, err)
	}
	if schema(t, db) != schema(t, New(t)) {
		t.Error("the schema differs from one that was made at once")
	}
	if err := migrations.Check(ctx, look); err != nil {
		t.Error(err)
	}
}

// version is the newest step that was applied.
func version(t *testing.T, look *pgx.Conn) (v int64) {
	t.Helper()
	var there bool
	if err := look.QueryRow(context.Background(), "SELECT to_regclass('goose_db_version') IS NOT NULL").Scan(&there); err != nil {
		t.Fatal(err)
	}
	if there {
		if err := look.QueryRow(context.Background(), "SELECT coalesce(max(version_id), 0) FROM goose_db_version").Scan(&v); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// kill ends the sessions of whoever migrates once a step was applied, unless it is
// done before.
func kill(t *testing.T, look *pgx.Conn, step int64, done chan error) {
	t.Helper()
	for version(t, look) < step && len(done) == 0 {
		_, _ = look.Exec(context.Background(), "SELECT pg_sleep(0.0002)")
	}
	_, err := look.Exec(context.Background(), `SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a, pg_stat_activity me
		WHERE me.pid = pg_backend_pid() AND a.datname = me.datname AND a.usename = me.usename AND a.pid <> me.pid`)
	if err != nil {
		t.Fatal(err)
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
