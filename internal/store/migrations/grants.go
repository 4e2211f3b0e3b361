package migrations

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// grants are the application's rights, as the migrations give them: what was
// restored without rights gets them back. Run as the owner.
var grants = []string{
	`DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'novacron_app') THEN CREATE ROLE novacron_app NOLOGIN; END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$`,
	`GRANT USAGE ON SCHEMA public TO novacron_app`,
	`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO novacron_app`,
	`REVOKE DELETE, TRUNCATE ON audit_log, audit_log_default FROM novacron_app`,
	`REVOKE INSERT, UPDATE, DELETE ON goose_db_version FROM novacron_app`,
	`GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO novacron_app`,
	`ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO novacron_app`,
	`ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO novacron_app`,
}

// Grant gives the application's role its rights on a database that was restored
// without any.
func Grant(ctx context.Context, conn *pgx.Conn) error {
	for _, sql := range grants {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("give the application its rights: %w", err)
		}
	}
	return nil
}

// Version is the schema's version of a database; 0 when it has none of ours.
func Version(ctx context.Context, conn *pgx.Conn) (int64, error) {
	var known bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass('goose_db_version') IS NOT NULL").Scan(&known); err != nil || !known {
		return 0, err
	}
	var has int64
	err := conn.QueryRow(ctx, applied).Scan(&has)
	return has, err
}
