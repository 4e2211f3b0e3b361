// Package migrations holds the schema, one file per change, and applies it.
//
// Changes are expand-then-contract: a migration may add what the program before
// it does not know, and must not take away or rename what that program still
// uses, so that both run side by side during an upgrade. A file that was
// released is never edited.
package migrations

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/novacron/novacron/internal/vocab/errs"
)

//go:embed *.sql
var files embed.FS

// Hash names the schema: two programs with the same hash migrate alike.
func Hash() string {
	h := sha256.New()
	names, _ := fs.Glob(files, "*.sql")
	for _, name := range names {
		b, _ := files.ReadFile(name)
		_, _ = fmt.Fprintf(h, "%s %d\n", name, len(b))
		_, _ = h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// Up brings the database of the owner's URL to this program's schema. Several
// servers may call it at once: one migrates under an advisory lock of the
// session, the others wait. A database newer than the program is refused and
// left alone.
func Up(ctx context.Context, ownerURL string) error {
	cfg, err := pgx.ParseConfig(ownerURL)
	if err != nil {
		return fmt.Errorf("read the database's URL: %w", err)
	}
	db := stdlib.OpenDB(*cfg)
	defer func() { _ = db.Close() }()
	if err := refuseNewer(ctx, db); err != nil {
		return err
	}
	p, err := provider(db)
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	return nil
}

func provider(db *sql.DB) (*goose.Provider, error) {
	// waits up to five minutes for another server's migration
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
	if err != nil {
		return nil, fmt.Errorf("prepare the migration lock: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithSessionLocker(locker), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return nil, fmt.Errorf("prepare the migrations: %w", err)
	}
	return p, nil
}

// refuseNewer fails if the database has migrations this program does not know.
func refuseNewer(ctx context.Context, db *sql.DB) error {
	var known bool
	if err := db.QueryRowContext(ctx, "SELECT to_regclass('goose_db_version') IS NOT NULL").Scan(&known); err != nil {
		return fmt.Errorf("look for the database's schema version: %w", err)
	}
	if !known {
		return nil
	}
	var has int64
	if err := db.QueryRowContext(ctx, applied).Scan(&has); err != nil {
		return fmt.Errorf("read the database's schema version: %w", err)
	}
	return checkVersion(has, Newest())
}

const applied = "SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied"

// Newest is the version of the schema this program brings.
func Newest() int64 {
	var newest int64
	names, _ := fs.Glob(files, "*.sql")
	for _, name := range names {
		if v, err := goose.NumericComponent(name); err == nil {
			newest = max(newest, v)
		}
	}
	return newest
}

func checkVersion(has, newest int64) error {
	if has > newest {
		return errs.New(errs.Unsupported,
			"the database's schema is version %d and this program knows versions up to %d: "+
				"a newer NovaCron has migrated it; run that version or newer",
			has, newest)
	}
	return nil
}

// Check tells whether the schema that conn sees is one this program can work
// with: at least its own version, and not a newer one it was never told about.
// It needs no more than the application's rights.
func Check(ctx context.Context, conn interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
},
) error {
	var has int64
	err := conn.QueryRow(ctx, applied).Scan(&has)
	if err != nil {
		return fmt.Errorf("read the database's schema version: %w", err)
	}
	if has < Newest() {
		return errs.New(errs.Unsupported, "the database's schema is version %d and this program needs %d: migrate it first",
			has, Newest())
	}
	return nil
}
