package storetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/internal/engine/pglocal"
	"github.com/novacron/novacron/internal/engine/pgpool"
	"github.com/novacron/novacron/internal/store/migrations"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// DB is one test's database.
type DB struct {
	// App is the application role's pool: what tests use.
	App    *pgxpool.Pool
	AppURL string
	// Owner is the pool of the role that owns the schema: to look and to break.
	Owner    *pgxpool.Pool
	OwnerURL string
	// Name of the database.
	Name string
}

const (
	testPrefix = "nct_"
	tplPrefix  = "nctpl_2_" // its number rises when templates are made otherwise
	oldTest    = time.Hour
	oldTpl     = 24 * time.Hour
	// An advisory lock of the database "postgres".
	lockTemplate = 0x6e637401
)

// New gives a fresh, migrated database that is dropped when the test ends.
func New(tb testing.TB) *DB { return fresh(tb, true) }

// Empty gives a fresh database without any schema.
func Empty(tb testing.TB) *DB { return fresh(tb, false) }

func fresh(tb testing.TB, migrated bool) *DB {
	tb.Helper()
	url, err := server()
	if err != nil {
		tb.Fatalf("storetest: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startUp)
	defer cancel()
	tpl := "template0"
	if migrated {
		if tpl, err = template(); err != nil {
			tb.Fatalf("storetest: %v", err)
		}
	}
	name := testPrefix + stamp() + "_" + random()
	if err := clone(ctx, url("", "postgres"), name, tpl); err != nil {
		tb.Fatalf("storetest: clone %s: %v", tpl, err)
	}
	db := &DB{Name: name, AppURL: url(pglocal.AppLogin, name), OwnerURL: url(pglocal.OwnerRole, name)}
	db.App, db.Owner = pool(tb, db.AppURL), pool(tb, db.OwnerURL)
	tb.Cleanup(func() { drop(tb, url("", "postgres"), name) })
	tb.Cleanup(func() { db.App.Close(); db.Owner.Close() })
	return db
}

func pool(tb testing.TB, url string) *pgxpool.Pool {
	tb.Helper()
	cfg, err := pgpool.Config(url)
	if err != nil {
		tb.Fatalf("storetest: %v", err)
	}
	cfg.MaxConns = 12
	p, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		tb.Fatalf("storetest: %v", err)
	}
	return p
}

// external uses a server that runs already.
func external(raw string) (func(role, db string) string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", urlEnv, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startUp)
	defer cancel()
	conn, err := pgx.Connect(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", urlEnv, err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := pglocal.EnsureRoles(ctx, conn, ""); err != nil {
		return nil, err
	}
	return func(role, db string) string {
		v := *u
		v.Path = "/" + db
		return withRole(v.String(), role)
	}, nil
}

// withRole makes the superuser's URL of an external server act as the role,
// which may have no password there to connect with.
func withRole(raw, role string) string {
	if role == "" {
		return raw
	}
	return withQuery(raw, "options", "-c role="+role)
}

func withQuery(raw, key, value string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	q := u.Query()
	q.Set(key, value)
	// PostgreSQL reads "+" in a URL's query literally
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return u.String()
}

// template makes the template of this schema once per machine.
var template = sync.OnceValues(func() (string, error) {
	url, err := server()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startUp)
	defer cancel()
	conn, err := pgx.Connect(ctx, url("", "postgres"))
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", lockTemplate); err != nil {
		return "", err
	}
	sweep(ctx, conn)
	name := tplPrefix + migrations.Hash()
	var exists bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists)
	if err != nil || exists {
		return name, err
	}
	return name, build(ctx, conn, url, name)
})

func build(ctx context.Context, conn *pgx.Conn, url func(role, db string) string, name string) error {
	making := testPrefix + stamp() + "_tpl_" + random()
	_, err := conn.Exec(ctx, "CREATE DATABASE "+making+" OWNER "+pglocal.OwnerRole+" TEMPLATE template0 STRATEGY file_copy")
	if err != nil {
		return fmt.Errorf("make the template: %w", err)
	}
	if err := migrations.Up(ctx, url(pglocal.OwnerRole, making)); err != nil {
		return err
	}
	for _, sql := range []string{
		"COMMENT ON DATABASE " + making + " IS '" + stamp() + "'",
		"ALTER DATABASE " + making + " RENAME TO " + name,
	} {
		if err := retry(ctx, func() error { _, err := conn.Exec(ctx, sql); return err }); err != nil {
			return fmt.Errorf("name the template: %w", err)
		}
	}
	return nil
}

// clone copies the template. A template cannot be copied while somebody is
// connected to it, which PostgreSQL's own workers are now and then.
func clone(ctx context.Context, adminURL, name, tpl string) error {
	conn, err := pgx.Connect(ctx, adminURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	return retry(ctx, func() error {
		_, err := conn.Exec(ctx, "CREATE DATABASE "+name+" OWNER "+pglocal.OwnerRole+" TEMPLATE "+tpl+" STRATEGY file_copy")
		return err
	})
}

// retry tries again while the object is in use.
func retry(ctx context.Context, f func() error) error {
	for {
		err := f()
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != "55006" { // object_in_use
			return err
		}
		if sleep := (clock.System{}).Sleep(ctx, 20*time.Millisecond); sleep != nil {
			return errors.Join(err, sleep)
		}
	}
}

func drop(tb testing.TB, adminURL, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), startUp)
	defer cancel()
	conn, err := pgx.Connect(ctx, adminURL)
	if err != nil {
		tb.Logf("storetest: drop %s: %v", name, err)
		return
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
		tb.Logf("storetest: drop %s: %v", name, err)
	}
}

// sweep drops what killed tests left and templates of earlier schemas, by age.
func sweep(ctx context.Context, conn *pgx.Conn) {
	rows, err := conn.Query(ctx, `SELECT datname, coalesce(shobj_description(oid, 'pg_database'), '')
		FROM pg_database WHERE datname LIKE 'nct\_%' OR datname LIKE 'nctpl\_%'`)
	if err != nil {
		return
	}
	type found struct{ Name, Comment string }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[found])
	if err != nil {
		return
	}
	for _, f := range all {
		made, most := f.Comment, oldTpl
		if rest, ok := strings.CutPrefix(f.Name, testPrefix); ok {
			made, _, _ = strings.Cut(rest, "_")
			most = oldTest
		}
		if at, err := strconv.ParseInt(made, 16, 64); err == nil && age(at) > most {
			_, _ = conn.Exec(ctx, "DROP DATABASE IF EXISTS "+f.Name+" WITH (FORCE)")
		}
	}
}

func age(unix int64) time.Duration { return (clock.System{}).Now().Sub(time.Unix(unix, 0)) }

func stamp() string { return strconv.FormatInt((clock.System{}).Now().Unix(), 16) }

func random() string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
