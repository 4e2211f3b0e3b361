package workflow

import (
	"context"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Release gives back the claims of servers that are proven dead, so that anyone
// may take their jobs at once, however soon the caller dies as well. It gives the
// number of jobs. The fence rises with the next claim, as always: should the
// proof have been wrong, the late writer is still refused.
func Release(ctx context.Context, db Querier, dead []id.ID) (int64, error) {
	if len(dead) == 0 {
		return 0, nil
	}
	tag, err := db.Exec(ctx, "UPDATE jobs SET holder = NULL WHERE holder = ANY($1)", dead)
	return tag.RowsAffected(), pgtx.Map(err)
}
