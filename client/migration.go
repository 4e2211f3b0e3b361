package client

import (
	"context"
	"iter"
	"net/url"

	"github.com/novacron/novacron/api"
)

// Migrations are the records of VMs' ways from node to node.
type Migrations struct{ c *Client }

// List gives one page, newest first.
func (s Migrations) List(ctx context.Context, o ListOptions) (api.List[api.Migration], error) {
	return list[api.Migration](ctx, s.c, "/migrations", o)
}

// All walks through every page.
func (s Migrations) All(ctx context.Context, o ListOptions) iter.Seq2[api.Migration, error] {
	return all[api.Migration](ctx, s.c, "/migrations", o)
}

// Get reads one; its id is that of its job.
func (s Migrations) Get(ctx context.Context, migration string) (api.Migration, error) {
	return get[api.Migration](ctx, s.c, "/migrations/"+url.PathEscape(migration))
}

// Migrate moves a VM to another node: with its guest when that runs or is paused.
func (s VMs) Migrate(ctx context.Context, vm string, req api.VMMigrate) (Change, error) {
	return create[Change](ctx, s.c, vmPath(vm)+"/migrate", req)
}

// Cutover has a warm migration come to its end, at a time or, without one, now.
func (s VMs) Cutover(ctx context.Context, vm string, req api.VMCutover) (Change, error) {
	return post[Change](ctx, s.c, vmPath(vm)+"/migrate/cutover", nil, req)
}

// PlanMigration says where a VM would go, and what that takes. It changes nothing.
func (s VMs) PlanMigration(ctx context.Context, vm string, req api.VMMigrate) (api.MigrationPlan, error) {
	out, err := post[api.VMMigrateResult](ctx, s.c, vmPath(vm)+"/migrate", url.Values{"dry_run": {"true"}}, req)
	if err != nil || out.Plan == nil {
		return api.MigrationPlan{}, err
	}
	return *out.Plan, nil
}
