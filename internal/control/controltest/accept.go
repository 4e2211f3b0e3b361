package controltest

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/engine/workflow"
)

// Accept has requests hand their jobs to an executor from now on; nil for none.
func (c *Cluster) Accept(e *workflow.Executor) { c.acceptor.Store(e) }

func (c *Cluster) accept(ctx context.Context, tx pgx.Tx, j workflow.NewJob) (*workflow.Birth, error) {
	if e := c.acceptor.Load(); e != nil {
		return e.Accept(ctx, tx, j)
	}
	return nil, workflow.Enqueue(ctx, tx, j)
}

// committed wakes the executor of Drive.
func (c *Cluster) committed() {
	if e := c.driver.Load(); e != nil {
		e.Nudge()
	}
}
