package store

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/id"
)

// stepDoc is a step that was taken because a migration stalled.
type stepDoc struct {
	Key        string          `json:"key"`
	Step       migration.Step  `json:"step"`
	Stall      migration.Stall `json:"stall"`
	Reason     string          `json:"reason"`
	Throttle   int             `json:"throttle,omitempty"`
	DowntimeMS int64           `json:"downtime_ms,omitempty"`
	// AgeMS becomes At, by the database's clock.
	AgeMS int64      `json:"age_ms,omitempty"`
	At    *time.Time `json:"at,omitempty"`
}

func (d stepDoc) escalation() migration.Escalation {
	e := migration.Escalation{Step: d.Step, Stall: d.Stall, Reason: d.Reason, Means: migration.Means{Throttle: d.Throttle, Downtime: milliseconds(d.DowntimeMS)}}
	if d.At != nil {
		e.At = *d.At
	}
	return e
}

// maxSteps bounds the steps on record of one migration.
const maxSteps = 200

// MigrationSteps notes what was done because a migration stalled, each step once; readers of
// events hear of it. Of one that has ended it changes nothing.
func (t *Tx) MigrationSteps(ctx context.Context, m id.ID, taken []migration.Taken) error {
	if len(taken) == 0 {
		return nil
	}
	docs := make([]map[string]any, 0, len(taken))
	for _, s := range taken {
		docs = append(docs, map[string]any{
			"key": s.Key, "step": s.Step, "stall": s.Stall, "reason": s.Reason, "throttle": s.Throttle,
			"downtime_ms": s.Downtime.Milliseconds(), "age_ms": max(0, s.Age.Milliseconds()),
		})
	}
	b, err := encode(docs)
	if err != nil {
		return err
	}
	return pgtx.Map(t.q.MigrationSteps(ctx, query.MigrationStepsParams{ID: m, Steps: b, Most: maxSteps}))
}
