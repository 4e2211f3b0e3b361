package sequence_test

import (
	"testing"
	"time"

	"github.com/novacron/novacron/internal/engine/sequence"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// How many events a second get their number and reach a reader.
func BenchmarkNumbering(b *testing.B) {
	db := storetest.New(b)
	ctx := b.Context()
	s := sequence.New(sequence.Options{Pool: db.App, Clock: clock.System{}, Poll: time.Millisecond})
	_, err := db.App.Exec(ctx, `INSERT INTO events (kind, object_kind, object_id, data)
		SELECT 'vm.updated', 'vm', gen_random_uuid(), '{"phase": "running", "reason": ""}' FROM generate_series(1, $1::int)`, b.N)
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = s.Run(ctx) }()
	b.ResetTimer()
	go s.Lead(ctx)
	sub, err := s.Hub().Subscribe(ctx, 0, nil)
	if err != nil {
		b.Fatal(err)
	}
	for got := 0; got < b.N; {
		events, err := sub.Next(ctx)
		if err != nil {
			b.Fatal(err)
		}
		got += len(events)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
