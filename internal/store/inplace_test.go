package store_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/store/storetest"
)

// What every job of a VM changes in its row stands in no index, nor in the condition
// of one: PostgreSQL would write a new entry in each of the row's indexes then.
func TestVMsAreChangedInPlace(t *testing.T) {
	db := storetest.New(t)
	rows, err := db.Owner.Query(t.Context(), `
SELECT i.indexrelid::regclass || ' has ' || a.attname FROM pg_index i
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum > 0
WHERE i.indrelid = 'vms'::regclass
  AND a.attname IN ('power', 'reserved', 'job_id', 'op_seq', 'owner_epoch', 'machine_type', 'revision', 'updated_at',
    'failure_code', 'failure_message', 'failed_at')
  AND (a.attnum = ANY(i.indkey) OR pg_get_expr(i.indpred, i.indrelid) ~ ('\m' || a.attname || '\M'))`)
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if len(found) > 0 {
		t.Error(found)
	}
}
