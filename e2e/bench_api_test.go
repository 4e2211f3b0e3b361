package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// The floors of the API are its own statements, sent to the same database.
const (
	rawRead = `SELECT v.id, v.project_id, v.name, v.labels, v.cpus, v.memory_bytes, v.image_id, i.name, v.power, v.node_id, v.owner_epoch,
  v.revision, v.created_at, v.updated_at, o.phase::text, o.since, n.name, n.seen_at, j.id, j.kind,
  coalesce((SELECT jsonb_agg(jsonb_build_object('id', s.id, 'size', s.size_bytes) ORDER BY s.slot) FROM storage_volumes s WHERE s.vm_id = v.id), '[]'),
  coalesce((SELECT jsonb_agg(jsonb_build_object('id', c.id, 'mac', c.mac) ORDER BY c.slot) FROM network_interfaces c WHERE c.vm_id = v.id), '[]')
FROM vms v LEFT JOIN images i ON i.id = v.image_id LEFT JOIN nodes n ON n.id = v.node_id
  LEFT JOIN LATERAL (SELECT * FROM instances x WHERE x.vm_id = v.id ORDER BY x.owner_epoch DESC LIMIT 1) o ON true
  LEFT JOIN jobs j ON j.id = v.job_id
WHERE v.project_id = (SELECT project_id FROM vms LIMIT 1) AND v.name = $1`
	rawLock  = `SELECT id FROM vms WHERE name = $1 FOR NO KEY UPDATE`
	rawWrite = `UPDATE vms SET labels = $2 WHERE name = $1`
	rawEvent = `INSERT INTO events (project_id, kind, object_kind, object_id, object_name) SELECT project_id, 'vm.updated', 'vm', id, name FROM vms WHERE name = $1`
	rawAudit = `INSERT INTO audit_log (principal, role, origin, action, object_kind, object_id, object_name, project_id, outcome, request_id, detail)
SELECT 'bench', 'administrator', 'bench', 'vm.update', 'vm', id, name, project_id, 'accepted', '', '{}' FROM vms WHERE name = $1`
)

// pool is a way to the instance's database that passes the product by.
func (i *instance) pool(b *testing.B, conns int32) *pgxpool.Pool {
	b.Helper()
	found, err := filepath.Glob(filepath.Join(i.data, "postgres", "*", "postmaster.pid"))
	if more, _ := filepath.Glob(filepath.Join(i.data, "postgres", "postmaster.pid")); err == nil {
		found = append(found, more...)
	}
	if len(found) == 0 {
		b.Fatalf("there is no PostgreSQL in %s: %v", i.data, err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		b.Fatal(err)
	}
	socket := strings.Split(string(text), "\n")[4]
	p, err := pgxpool.New(b.Context(), fmt.Sprintf("host=%s user=novacron_server dbname=novacron pool_max_conns=%d", socket, conns))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	return p
}

func vmName(k int) string { return fmt.Sprintf("vm-%05d", k) }

// What a request for one VM, a change and an event take, with 10,000 VMs.
func BenchmarkAPI(b *testing.B) {
	const vms = 10000
	i := up(b, "--sim", "10")
	i.importSliver()
	i.populate(vms)
	c, raw := i.client(), i.pool(b, 16)
	benchGet(b, c, raw, vms)
	benchChange(b, c, raw)
	benchEvents(b, c)
}

func benchGet(b *testing.B, c *client.Client, raw *pgxpool.Pool, vms int) {
	var ours, bare []time.Duration
	k := 0
	get := func() {
		for range 150 {
			k = (k + 7919) % vms
			at := clock.System{}.Boot()
			if _, err := c.VMs.Get(b.Context(), vmName(k)); err != nil {
				b.Fatal(err)
			}
			ours = append(ours, clock.System{}.Boot()-at)
		}
	}
	read := func() {
		for range 150 {
			k = (k + 7919) % vms
			at := clock.System{}.Boot()
			rows, err := raw.Query(b.Context(), rawRead, vmName(k))
			if err != nil {
				b.Fatal(err)
			}
			for rows.Next() {
				if _, err := rows.Values(); err != nil {
					b.Fatal(err)
				}
			}
			rows.Close()
			bare = append(bare, clock.System{}.Boot()-at)
		}
	}
	drift := steadily(b, func() {
		ours, bare = nil, nil
		for range 7 {
			get()
			read()
			read()
			get()
		}
	})
	s, f := spreadOf(millis(ours)), spreadOf(millis(bare))
	record(b, figure{
		Name: "GET of a VM, 10,000 VMs", What: "one VM by its name over the UNIX socket; the floor is the same read by SQL", Unit: "ms",
		Ours: s, Floor: &f, Value: s.P50, Goal: "p50 under 1 ms", Met: s.P50 < 1, Drift: drift,
	})
}

// changers ask at once.
const changers = 16

// turn is how long one side is measured before the other's turn.
const turn = 2 * time.Second

// throughput counts how often per second work is done by all changers, for a span.
func throughput(b *testing.B, span time.Duration, work func(ctx context.Context, changer int) error) float64 {
	b.Helper()
	var n atomic.Int64
	var wg sync.WaitGroup
	end := clock.System{}.Boot() + span
	for k := range changers {
		wg.Go(func() {
			for (clock.System{}).Boot() < end {
				if err := work(b.Context(), k); err != nil {
					b.Error(err)
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(n.Load()) / span.Seconds()
}

func benchChange(b *testing.B, c *client.Client, raw *pgxpool.Pool) {
	change := relabel(b, c)
	bare := func(ctx context.Context, k int) error {
		name := vmName(100 + k)
		tx, err := raw.Begin(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback(ctx) }()
		for _, s := range []string{rawLock, rawRead, rawEvent, rawAudit} {
			if _, err := tx.Exec(ctx, s, name); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, rawWrite, name, fmt.Sprintf(`{"at": "%d"}`, clock.System{}.Boot())); err != nil {
			return err
		}
		return tx.Commit(ctx)
	}
	var ours, floor, ratios []float64
	drift := steadily(b, func() {
		ours, floor, ratios = nil, nil, nil
		for range 7 {
			a := throughput(b, turn, change)
			f := throughput(b, turn, bare) + throughput(b, turn, bare)
			a += throughput(b, turn, change)
			ours, floor, ratios = append(ours, a/2), append(floor, f/2), append(ratios, a/f)
		}
	})
	f := spreadOf(floor)
	value := 100 * median(ratios)
	record(b, figure{
		Name: "durable change", What: "labels of VMs changed per second by 16 clients, each with its event and its audit record; the floor is the same SQL", Unit: "per second",
		Ours: spreadOf(ours), Floor: &f, Value: value, Goal: "at least 30 % of the floor", Met: value >= 30, Drift: drift,
	})
}

// relabel gives each changer a VM whose labels it changes.
func relabel(b *testing.B, c *client.Client) func(ctx context.Context, changer int) error {
	b.Helper()
	var revisions [changers]int64
	for k := range revisions {
		revisions[k] = revisionOf(b, c, vmName(k))
	}
	return func(ctx context.Context, k int) error {
		v, err := c.VMs.Patch(ctx, vmName(k), revisions[k], labelled())
		revisions[k] = v.Revision
		return err
	}
}

func revisionOf(b *testing.B, c *client.Client, vm string) int64 {
	b.Helper()
	v, err := c.VMs.Get(b.Context(), vm)
	if err != nil {
		b.Fatal(err)
	}
	return v.Revision
}

// labelled is a change that is one each time.
func labelled() api.VMPatch {
	labels := map[string]string{"at": fmt.Sprint(clock.System{}.Boot().Nanoseconds())}
	return api.VMPatch{Labels: &labels}
}

// benchEvents has a hundred sockets hear of changes, each of which is timed from
// before its request was sent.
func benchEvents(b *testing.B, c *client.Client) {
	const sockets, changes = 100, 200
	var took []time.Duration
	drift := steadily(b, func() { took = hear(b, c, sockets, changes) })
	if len(took) != sockets*changes {
		b.Errorf("%d events were heard, and %d sent", len(took), sockets*changes)
	}
	s := spreadOf(millis(took))
	record(b, figure{
		Name: "change to 100 WebSockets", What: "from the request for a change to its event at each of 100 sockets", Unit: "ms",
		Ours: s, Value: s.P99, Goal: "p99 under 50 ms", Met: s.P99 < 50, Drift: drift,
	})
}

func hear(b *testing.B, c *client.Client, sockets, changes int) []time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	var sent sync.Map // label -> when
	var mu sync.Mutex
	var took []time.Duration
	var ready, wg sync.WaitGroup
	marker := vmName(99)
	for range sockets {
		ready.Add(1)
		wg.Go(func() {
			var once sync.Once
			heard := 0
			for e, err := range c.Events(ctx, client.FromNow) {
				at := clock.System{}.Boot()
				if err != nil {
					b.Error(err)
					break
				}
				if e.Object.Name == marker {
					once.Do(ready.Done)
					continue
				}
				when, ok := sent.Load(e.Object.Name)
				if !ok || e.Kind != "vm.updated" {
					continue
				}
				mu.Lock()
				took = append(took, at-when.(time.Duration))
				mu.Unlock()
				if heard++; heard == changes {
					return
				}
			}
			once.Do(ready.Done)
		})
	}
	patch := func(name string) {
		revision := revisionOf(b, c, name)
		sent.Store(name, clock.System{}.Boot())
		if _, err := c.VMs.Patch(ctx, name, revision, labelled()); err != nil {
			b.Error(err)
		}
	}
	var listening atomic.Bool
	go func() { ready.Wait(); listening.Store(true) }()
	for !listening.Load() && ctx.Err() == nil {
		patch(marker)
		_ = clock.System{}.Sleep(ctx, 100*time.Millisecond)
	}
	for k := range changes {
		patch(vmName(1000 + k))
		_ = clock.System{}.Sleep(ctx, 10*time.Millisecond)
	}
	wg.Wait()
	return took
}

// What logging costs: the same requests of two servers, of which one logs nothing. They
// change places half-way: what else is different between the two comes to both sides.
func BenchmarkLogging(b *testing.B) {
	pair := []*instance{up(b, "--sim", "2"), up(b, "--sim", "2")}
	for _, i := range pair {
		i.importSliver()
		i.populate(100)
	}
	bare := pair[0].args
	var ours, floor, lost []float64
	drift := steadily(b, func() {
		ours, floor, lost = nil, nil, nil
		for half, loud := range pair {
			mute := pair[1-half]
			loud.again(bare)
			mute.again(append(slices.Clone(bare), "--log-level", "none"))
			lost = append(lost, median(compareLogging(b, loud, mute, &ours, &floor)))
		}
	})
	f := spreadOf(floor)
	value := (lost[0] + lost[1]) / 2
	record(b, figure{
		Name: "logging", What: "requests per second that are lost to logging", Unit: "per second",
		Ours: spreadOf(ours), Floor: &f, Value: value, Goal: "under 2 % lost", Met: value < 2, Drift: drift,
	})
}

// again restarts an instance with the settings of args.
func (i *instance) again(args []string) {
	i.t.Helper()
	i.must("down")
	i.args = append([]string{"up", "--detach", "--data-dir", i.data}, args[4:]...)
	i.start()
}

// compareLogging gives the share of requests, in percent, that the one lost against the
// other, per round.
func compareLogging(b *testing.B, loud, mute *instance, ours, floor *[]float64) (lost []float64) {
	b.Helper()
	const rounds = 14
	change := map[*instance]func(context.Context, int) error{loud: relabel(b, loud.client()), mute: relabel(b, mute.client())}
	rate := func(i *instance) float64 { return throughput(b, turn/4, change[i]) }
	for range rounds {
		a := rate(loud)
		f := rate(mute) + rate(mute)
		a += rate(loud)
		*ours, *floor, lost = append(*ours, a/2), append(*floor, f/2), append(lost, 100*(1-a/f))
	}
	return lost
}
