package server

import (
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// What a request says arrives as it was meant, and what is no duration any more stays out of
// bounds instead of becoming a small one.
func TestMigrationRequests(t *testing.T) {
	b := api.VMMigrate{Node: "b", Reason: "why", Kind: "live", Profile: "wan", Priority: 3, Options: &api.MigrationOptions{
		BytesPerSecond: 1 << 20, DowntimeMS: 90, MaxDowntimeMS: 900, OnStall: []string{"throttle", "give_up"}, AutoConverge: true, Compression: "zstd", Channels: 4, PatienceSeconds: 60, TimeoutSeconds: 3600,
	}}
	want := migration.Request{Node: "b", Reason: "why", Kind: migration.Live, Profile: migration.ProfileWAN, Priority: 3, Options: migration.Options{
		BytesPerSecond: 1 << 20, Downtime: 90 * time.Millisecond, MaxDowntime: 900 * time.Millisecond, OnStall: "throttle,give_up", AutoConverge: true, Compression: "zstd", Channels: 4, Patience: time.Minute, Timeout: time.Hour,
	}}
	got := toMigrationRequest(b)
	if got != want || got.Validate() != nil {
		t.Errorf("%+v %v", got, got.Validate())
	}
	if back := toMigrationOptions(migration.Live, got.Options); !reflect.DeepEqual(*back, *b.Options) {
		t.Errorf("%+v", back)
	}
	at := time.Unix(1_790_000_000, 0).UTC()
	warm := toMigrationRequest(api.VMMigrate{Kind: "warm", Options: &api.MigrationOptions{Cutover: "manual", CutoverAt: &at, IntervalSeconds: 60}})
	if warm.Options != (migration.Options{Cutover: migration.Manual, CutoverAt: at, Interval: time.Minute}) || warm.Validate() != nil {
		t.Errorf("%+v %v", warm, warm.Validate())
	}
	if back := toMigrationOptions(migration.Warm, warm.Options); back.Cutover != "manual" || !back.CutoverAt.Equal(at) || back.IntervalSeconds != 60 {
		t.Errorf("%+v", back)
	}
	m := toMigration(migration.Migration{Kind: migration.Warm, CutoverAt: &at, Progress: migration.Progress{Warm: &migration.Warmth{Rounds: 3, LastBytes: 7, LastTook: time.Second, Changed: 5, Cut: true, Cuts: 2}}})
	if m.Type != "warm" || !m.CutoverAt.Equal(at) || *m.Progress.Warm != (api.MigrationWarmth{Rounds: 3, LastBytes: 7, LastSeconds: 1, ChangedBytes: 5, Cut: true, Cuts: 2}) {
		t.Errorf("%+v %+v", m, m.Progress.Warm)
	}
	for _, n := range []int64{math.MaxInt64, math.MinInt64, math.MaxInt64/1000 + 1} {
		got := toMigrationRequest(api.VMMigrate{Options: &api.MigrationOptions{DowntimeMS: n, MaxDowntimeMS: n, PatienceSeconds: n, TimeoutSeconds: n}})
		if err := got.Validate(); !errs.Is(err, errs.OutOfRange) || len(errs.As(err).Fields) != 4 {
			t.Errorf("%d: %v", n, err)
		}
	}
}
