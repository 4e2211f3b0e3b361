package store_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/store/migrations"
	"github.com/novacron/novacron/internal/store/storetest"
)

// What the application may do on a database that was restored without any rights
// is what the migrations let it do.
func TestGrant(t *testing.T) {
	db := storetest.New(t)
	rights := func() []string {
		t.Helper()
		rows, err := db.Owner.Query(t.Context(), `
SELECT c.relname || ' ' || a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
WHERE c.relnamespace = 'public'::regnamespace AND a.grantee = 'novacron_app'::regrole
UNION ALL SELECT 'new ' || d.defaclobjtype::text || ' ' || a.privilege_type FROM pg_default_acl d, aclexplode(d.defaclacl) a
WHERE a.grantee = 'novacron_app'::regrole
UNION ALL SELECT n.nspname || ' ' || a.privilege_type FROM pg_namespace n, aclexplode(n.nspacl) a
WHERE n.nspname = 'public' AND a.grantee = 'novacron_app'::regrole ORDER BY 1`)
		if err != nil {
			t.Fatal(err)
		}
		out, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	want := rights()
	for _, sql := range []string{
		"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM novacron_app", "REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM novacron_app",
		"REVOKE ALL ON SCHEMA public FROM novacron_app",
		"ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM novacron_app",
		"ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON SEQUENCES FROM novacron_app",
	} {
		if _, err := db.Owner.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if len(want) < 50 || len(rights()) != 0 {
		t.Fatalf("%d rights, and %d are left", len(want), len(rights()))
	}
	conn, err := pgx.Connect(t.Context(), db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if err := migrations.Grant(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, rights()); diff != "" {
		t.Errorf("rights (-migrated +granted):\n%s", diff)
	}
}
