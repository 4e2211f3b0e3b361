package local

import (
	"context"
	"errors"
	"io"

	"github.com/novacron/novacron/internal/engine/pglocal"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// WithDatabase runs the private PostgreSQL of an instance that does not run, for
// as long as use takes; nobody can start the instance meanwhile. use is given the
// URL of the superuser, by database.
func WithDatabase(ctx context.Context, p Paths, clk clock.Clock, use func(admin func(database string) string) error) error {
	owner, err := Options{}.owner()
	if err != nil {
		return err
	}
	if err := claimData(p); err != nil {
		return err
	}
	lock, err := takeLock(p)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := makeDirs(p, owner); err != nil {
		return err
	}
	o := pglocal.Options{Dir: p.postgres(), SocketDir: p.pgSocket(), Owner: owner, Clock: clk, Log: io.Discard}
	wait, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	// what an instance that was killed has left
	if err := pglocal.StopRunning(wait, o); err != nil {
		return err
	}
	c, err := pglocal.Prepare(wait, o)
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	defer func() { _ = c.Stop(context.WithoutCancel(ctx)) }()
	if err := c.Ready(wait); err != nil {
		return err
	}
	err = use(o.AdminURL)
	return errors.Join(err, ctx.Err())
}
