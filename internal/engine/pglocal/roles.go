package pglocal

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Connect waits until the server of the directory takes connections, whoever
// started it, and makes the roles and the database if they are missing. gone, if
// not nil, is asked at each try whether waiting is still of use.
func (o Options) Connect(ctx context.Context, gone func() error) error {
	o = o.filled()
	for {
		conn, err := pgx.Connect(ctx, o.AdminURL("postgres"))
		if err == nil {
			defer func() { _ = conn.Close(ctx) }()
			return EnsureRoles(ctx, conn, Database)
		}
		if gone != nil {
			if err := gone(); err != nil {
				return err
			}
		}
		if sleep := o.Clock.Sleep(ctx, poll); sleep != nil {
			return errs.New(errs.DBUnavailable, "PostgreSQL in %s did not answer in time", o.Dir).Because(errors.Join(sleep, err))
		}
	}
}

// EnsureRoles makes the two roles, the application's login and, if it is named,
// the database. conn is a superuser's.
func EnsureRoles(ctx context.Context, conn *pgx.Conn, database string) error {
	for _, sql := range []string{
		"CREATE ROLE " + OwnerRole + " LOGIN",
		"CREATE ROLE " + AppRole + " NOLOGIN",
		"CREATE ROLE " + AppLogin + " LOGIN IN ROLE " + AppRole,
	} {
		if err := create(ctx, conn, sql); err != nil {
			return err
		}
	}
	if database == "" {
		return nil
	}
	var exists bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database).Scan(&exists)
	if err != nil {
		return fmt.Errorf("look for the database: %w", err)
	}
	if exists {
		return nil
	}
	return create(ctx, conn, "CREATE DATABASE "+pgx.Identifier{database}.Sanitize()+
		" OWNER "+OwnerRole+" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'")
}

// create runs a CREATE; that the object exists already is no error.
func create(ctx context.Context, conn *pgx.Conn, sql string) error {
	_, err := conn.Exec(ctx, sql)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case "42710", "42P04", "23505": // duplicate_object, duplicate_database, or the race between two
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}
