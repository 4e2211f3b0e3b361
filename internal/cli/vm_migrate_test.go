package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
)

// What is said on the command line is what is asked for, and nothing besides.
func TestVMMigrateAsks(t *testing.T) {
	b := newBench(t)
	b.on("POST /vms/web/migrate", 202, api.VMMigrateResult{Job: &api.Job{ID: "j1", Type: "vm.migrate_live", State: "queued"}})
	for line, body := range map[string]string{
		"":                          `{}`,
		"--node b --reason why":     `{"node":"b","reason":"why"}`,
		"--kind cold --priority -3": `{"kind":"cold","priority":-3}`,
		"--profile wan":             `{"profile":"wan"}`,
		"--bandwidth 200MiB":        `{"options":{"bytes_per_second":209715200}}`,
		"--downtime 90ms":           `{"options":{"downtime_ms":90}}`,
		"--compress zstd --channels 4 --auto-converge":  `{"options":{"auto_converge":true,"compression":"zstd","channels":4}}`,
		"--max-downtime 5s --on-stall downtime,give-up": `{"options":{"max_downtime_ms":5000,"on_stall":["downtime","give_up"]}}`,
		"--patience 1m --give-up-after 2h":              `{"options":{"patience_seconds":60,"timeout_seconds":7200}}`,
		"--kind warm --cutover manual --interval 1m":    `{"kind":"warm","options":{"cutover":"manual","interval_seconds":60}}`,
		"--kind warm --cutover 2026-12-01T02:00:00Z":    `{"kind":"warm","options":{"cutover_at":"2026-12-01T02:00:00Z"}}`,
	} {
		if got := b.do(t, "vm migrate web "+line, 0); !strings.Contains(got, "accepted as job j1") {
			t.Error(got)
		}
		asked := b.requests()
		expect(t, asked[len(asked)-1], "POST /api/v1/vms/web/migrate "+body)
	}
	before := len(b.requests())
	for _, line := range []string{"--bandwidth fast", "--downtime 1us", "--max-downtime 1us", "--give-up-after 10ms", "--cutover soon", "--interval 1ms"} {
		b.do(t, "vm migrate web "+line, 2)
	}
	if len(b.requests()) != before {
		t.Errorf("asked in spite of it: %v", b.requests()[before:])
	}
}

func someMigration() api.Migration {
	begun, end := time.Unix(1_790_000_004, 0), time.Unix(1_790_000_010, 0)
	return api.Migration{
		Kind: "migration", ID: "j1", VM: api.JobTarget{Kind: "vm", Name: "web"}, Type: "live", State: "succeeded", Source: "a", Target: "b",
		PredictedBytes: 5 << 30, BytesMoved: 6 << 30, DowntimeMS: 42, DowntimeSeenMS: 80, CreatedAt: time.Unix(1_790_000_000, 0), BegunAt: &begun, FinishedAt: &end,
		Predicted: api.MigrationPrediction{Bytes: 5 << 30, BytesPerSecond: 1 << 30, Assumption: "said", Seconds: 5, DowntimeMS: 300, Converges: "yes", DirtyBytesPerSecond: 1 << 20},
		Options:   &api.MigrationOptions{DowntimeMS: 300, Channels: 2, Compression: "zstd", AutoConverge: true, BytesPerSecond: 1 << 30, MaxDowntimeMS: 1000, OnStall: []string{"throttle", "give_up"}},
		Progress:  &api.MigrationProgress{MemoryMoved: 2 << 30, MemoryRemaining: 1 << 20, DisksMoved: 4 << 30, BytesPerSecond: 1 << 30, DirtyBytesPerSecond: 1 << 20, ExpectedDowntimeMS: 7},
		Steps: []api.MigrationStep{
			{Step: "throttle", Stall: "outrun", Reason: "so fast", ThrottlePercent: 40, DowntimeMS: 300, At: begun},
			{Step: "downtime", Stall: "outrun", Reason: "faster", ThrottlePercent: 40, DowntimeMS: 600, At: begun},
		},
		Phases: []api.MigrationPhase{{Name: "accepted", At: time.Unix(1_790_000_000, 0)}, {Name: "memory", At: begun}},
	}
}

// Who waits is told the phases, and at the end where it is and for how long it was halted.
func TestVMMigrateIsFollowed(t *testing.T) {
	b := newBench(t)
	end := time.Unix(1_790_000_010, 0)
	b.on("POST /vms/web/migrate", 202, api.VMMigrateResult{Job: &api.Job{ID: "j1", Type: "vm.migrate_live", State: "running"}})
	b.on("GET /jobs/j1", 200, api.Job{ID: "j1", Type: "vm.migrate_live", Target: api.JobTarget{Kind: "vm", Name: "web"}, State: "succeeded", CreatedAt: time.Unix(1_790_000_000, 0), FinishedAt: &end})
	b.on("GET /migrations/j1", 200, someMigration())
	got := b.do(t, "vm migrate web --wait", 0)
	if !strings.Contains(got, "done in 10.0s") || !strings.Contains(got, "it is on b now: 6 GiB copied, halted for 42 ms") {
		t.Error(got)
	}
	expect(t, migrationLine(someMigration(), false), "migrate web to b: memory")
	expect(t, migrationLine(someMigration(), true), "migrate web to b: memory, 6 GiB of 5 GiB at 1 GiB/s, memory changes at 1 MiB/s, 1 MiB left, would halt for 7 ms, may be halted for 600 ms")
}

func TestMigrationShow(t *testing.T) {
	b := newBench(t)
	b.on("GET /migrations/j1", 200, someMigration())
	got := b.do(t, "migration show j1", 0)
	for _, want := range []string{
		"about 5s at 1 GiB/s (said)", "up to about 300 ms", "converges", "1 MiB/s, when it was moved last", "halted for up to 300 ms, 2 channels, at most 1 GiB/s, zstd, up to 1000 ms where it must be, when it stalls throttle, give up, slowed down", "processors slowed down by 40% (so fast)", "may be halted for 600 ms (faster)",
		"2 GiB copied, 1 MiB left", "42 ms, as its hypervisor tells", "80 ms, as the control plane saw it", "4.0s",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	m := someMigration()
	sampled := time.Unix(1_790_000_000, 0)
	m.Predicted.DirtyFrom, m.Predicted.SampledAt = "sampled", &sampled
	b.on("GET /migrations/j2", 200, m)
	if got := b.do(t, "migration show j2", 0); !strings.Contains(got, "1 MiB/s, sampled at "+sampled.UTC().Format(time.RFC3339)) {
		t.Error(got)
	}
	b.on("POST /jobs/j1/cancel", 202, api.VMMigrateResult{Job: &api.Job{ID: "j1"}})
	b.do(t, "migration cancel j1", 0)
	if asked := b.requests(); asked[len(asked)-1] != "POST /api/v1/jobs/j1/cancel" {
		t.Errorf("%v", asked)
	}
}

// Where nodes do not reach each other, the plan says so, and so does the record, while it
// goes on and afterwards.
func TestVMMigrateSaysRelayed(t *testing.T) {
	b := newBench(t)
	b.on("POST /vms/web/migrate", 200, api.VMMigrateResult{Plan: &api.MigrationPlan{Type: "live", Source: "a", Target: "b", Reach: "relayed"}})
	if got := b.do(t, "vm migrate web --plan", 0); !strings.Contains(got, "no: relayed by a server, which is slower") {
		t.Error(got)
	}
	m := someMigration()
	m.Relayed = true
	b.on("GET /migrations/j1", 200, m)
	if got := b.do(t, "migration show j1", 0); !strings.Contains(got, "by a server: its nodes do not reach each other") {
		t.Error(got)
	}
	expect(t, migrationLine(m, false), "migrate web to b: memory, relayed by a server")
}

// The list says what each migration waits for, and the record what it has of its nodes.
func TestMigrationWaits(t *testing.T) {
	b := newBench(t)
	m := someMigration()
	m.WaitReason, m.ShareBytesPerSecond = "waits for its turn: 2 of 2 migrations from node a", 50<<20
	b.on("GET /migrations", 200, api.List[api.Migration]{Items: []api.Migration{m}})
	b.on("GET /migrations/j1", 200, m)
	if got := b.do(t, "migration list", 0); !strings.Contains(got, m.WaitReason) {
		t.Error(got)
	}
	got := b.do(t, "migration show j1", 0)
	if !strings.Contains(got, m.WaitReason) || !strings.Contains(got, "50 MiB/s of what its nodes give to all migrations") {
		t.Error(got)
	}
}

// A warm migration is told to come to its end, now or at a time, and its record tells of rounds.
func TestVMCutover(t *testing.T) {
	b := newBench(t)
	b.on("POST /vms/web/migrate/cutover", 202, api.Accepted{Job: api.Job{ID: "j1", Type: "vm.migrate_warm", State: "waiting"}})
	for line, body := range map[string]string{"": `{}`, "--at 2026-12-01T02:00:00Z": `{"at":"2026-12-01T02:00:00Z"}`} {
		if got := b.do(t, "vm cutover web "+line, 0); !strings.Contains(got, "j1") {
			t.Error(got)
		}
		asked := b.requests()
		expect(t, asked[len(asked)-1], "POST /api/v1/vms/web/migrate/cutover "+body)
	}
	b.do(t, "vm cutover web --at tonight", 2)
	m := someMigration()
	at := time.Unix(1_790_000_000, 0)
	m.Type, m.CutoverAt = "warm", &at
	m.Options = &api.MigrationOptions{Cutover: "manual", IntervalSeconds: 30, Channels: 2}
	m.Progress.Warm = &api.MigrationWarmth{Rounds: 4, LastBytes: 3 << 20, LastSeconds: 1.5, ChangedBytes: 1 << 20, Cut: true, Cuts: 2}
	m.Steps = []api.MigrationStep{{Step: "anew", Stall: "silent", Reason: "its agent began anew", At: at}}
	b.on("GET /migrations/j1", 200, m)
	got := b.do(t, "migration show j1", 0)
	for _, want := range []string{"4; the last copied 3 MiB in 1.5 s, 1 MiB have changed since", "2 times", "cutover manual, a round every 30 s", at.UTC().Format(time.RFC3339), "copied anew (its agent began anew)"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if got := migrationLine(m, true); !strings.Contains(got, "4 rounds, 1 MiB changed since, its target cannot be reached, copied anew") {
		t.Error(got)
	}
}
