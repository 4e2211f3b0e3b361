package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/engine/pglocal"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/store/migrations"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// victim is a PostgreSQL of the test's own, durable, that may be hurt. Whenever it
// ends, it is started again, as a supervisor would.
type victim struct {
	t    *testing.T
	opts pglocal.Options
	// down keeps it from being started again
	down atomic.Bool
}

// newVictim runs a database in a folder until the test ends. The time limits of
// its connections are short, so that the test is.
func newVictim(t *testing.T, dir string) (*victim, *storetest.DB) {
	t.Helper()
	v := &victim{t: t, opts: pglocal.Options{Dir: filepath.Join(dir, "pg"), Log: io.Discard, MaxConnections: 60}}
	if os.Geteuid() == 0 {
		v.opts.Owner = &pglocal.Owner{UID: 65534, GID: 65534}
	}
	ctx, cancel := context.WithCancel(context.Background())
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		v.supervise(ctx, started)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = pglocal.StopRunning(context.Background(), v.opts)
	})
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if err := migrations.Up(t.Context(), v.opts.OwnerURL()); err != nil {
		t.Fatal(err)
	}
	const limits = "&lock_timeout=400&statement_timeout=600&pool_max_conns=12"
	return v, &storetest.DB{Name: pglocal.Database, AppURL: v.opts.AppURL() + limits, OwnerURL: v.opts.OwnerURL()}
}

func (v *victim) supervise(ctx context.Context, started chan<- error) {
	first := true
	for ctx.Err() == nil {
		err := v.once(ctx, func(err error) {
			if first {
				started <- err
				first = false
			}
		})
		if err != nil && first {
			started <- err
			return
		}
		_ = (clock.System{}).Sleep(ctx, 50*time.Millisecond)
	}
}

func (v *victim) once(ctx context.Context, ready func(error)) error {
	if v.down.Load() {
		return errors.New("it is to stay down")
	}
	if err := pglocal.StopRunning(ctx, v.opts); err != nil {
		return err
	}
	c, err := pglocal.Prepare(ctx, v.opts)
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	if err := c.Ready(ctx); err != nil {
		return err
	}
	ready(nil)
	select {
	case <-c.Exited():
	case <-ctx.Done():
		return c.Stop(context.Background())
	}
	return nil
}

// kill ends the postmaster as a power cut would; its children follow by themselves.
func (v *victim) kill() {
	v.t.Helper()
	b, err := os.ReadFile(filepath.Join(v.opts.Dir, "data", "postmaster.pid"))
	if err != nil {
		return // it is just starting again
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if pid, err := strconv.Atoi(line); err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// does runs statements as the superuser.
func (v *victim) does(statements ...string) {
	v.t.Helper()
	conn, err := pgx.Connect(v.t.Context(), v.opts.AdminURL(pglocal.Database))
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = conn.Close(v.t.Context()) }()
	for _, s := range statements {
		if _, err := conn.Exec(v.t.Context(), s); err != nil {
			v.t.Fatalf("%s: %v", s, err)
		}
	}
}

// load asks for VMs, over and over, and counts what it is answered.
type load struct {
	r    *running
	stop context.CancelFunc
	wg   sync.WaitGroup

	refused atomic.Int64
	mu      sync.Mutex
	// accepted is the job of each VM that was accepted, by name
	accepted map[string]string
	odd      []string
}

const loaders = 4

func newLoad(r *running) *load {
	ctx, cancel := context.WithCancel(r.t.Context())
	l := &load{r: r, stop: cancel, accepted: map[string]string{}}
	for w := range loaders {
		l.wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				l.create(fmt.Sprintf("vm-%d-%d", w, n))
				_ = (clock.System{}).Sleep(ctx, 40*time.Millisecond)
			}
		})
	}
	r.t.Cleanup(func() { cancel(); l.wg.Wait() })
	return l
}

// create insists until a VM is accepted, under one key. What is not accepted must
// be refused as the contract says.
func (l *load) create(name string) {
	until := (clock.System{}).Boot() + time.Minute
	for (clock.System{}).Boot() < until {
		status, header, out := l.post(name)
		if status == http.StatusAccepted {
			l.mu.Lock()
			l.accepted[name] = out.Job.ID
			l.mu.Unlock()
			return
		}
		if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
			l.mu.Lock()
			l.odd = append(l.odd, fmt.Sprintf("%s: %d %q", name, status, header.Get("Novacron-Test-Body")))
			l.mu.Unlock()
		}
		l.refused.Add(1)
		_ = (clock.System{}).Sleep(l.r.t.Context(), 50*time.Millisecond)
	}
}

func (l *load) post(name string) (int, http.Header, api.Accepted) {
	var out api.Accepted
	body, err := json.Marshal(newVM(name))
	if err != nil {
		return 0, nil, out
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://local/api/v1/vms", strings.NewReader(string(body)))
	if err != nil {
		return 0, nil, out
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", name)
	resp, err := l.r.http.Do(req)
	if err != nil {
		return 0, http.Header{"Novacron-Test-Body": {err.Error()}}, out
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode == http.StatusAccepted {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil || resp.StatusCode != http.StatusAccepted {
		resp.Header.Set("Novacron-Test-Body", string(raw))
		var p api.Error
		if json.Unmarshal(raw, &p) == nil && p.Code != "db_unavailable" {
			resp.Header.Del("Retry-After")
		}
	}
	return resp.StatusCode, resp.Header, out
}

// count is how many were accepted.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted)
}

// more waits until n more were accepted.
func (l *load) more(n int) {
	l.r.t.Helper()
	n += l.count()
	l.r.until(fmt.Sprintf("%d VMs accepted", n), time.Minute, func() bool { return l.count() >= n })
}

// during waits until so many requests more were refused.
func (l *load) during(n int64) {
	l.r.t.Helper()
	n += l.refused.Load()
	l.r.until(fmt.Sprintf("%d requests refused", n), time.Minute, func() bool { return l.refused.Load() >= n })
}

// end stops the load and looks at everything: what was acknowledged is there, once;
// every job has ended well by itself; nothing is doubled, left or held.
func (l *load) end(db *storetest.DB) {
	t := l.r.t
	t.Helper()
	l.stop()
	l.wg.Wait()
	if len(l.odd) > 0 {
		t.Errorf("%d answers are neither 202 nor 503 db_unavailable with Retry-After: %s", len(l.odd), strings.Join(l.odd[:min(len(l.odd), 5)], "\n"))
	}
	var why string
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		if why = l.rests(ctx, db); why == "" {
			break
		}
		if (clock.System{}).Sleep(ctx, 100*time.Millisecond) != nil {
			t.Fatalf("never at rest: %s", why)
		}
	}
	t.Logf("%d accepted, %d refused", l.count(), l.refused.Load())
	if v, status := call[api.AuditVerified](l.r, "GET", "/api/v1/audit/verify", nil); status != http.StatusOK || !v.Intact {
		t.Errorf("audit: %d %+v", status, v)
	}
	if rec := l.r.recovery(); rec.Held {
		t.Errorf("held: %+v", rec)
	}
}

// rests tells what is not as it should be yet.
func (l *load) rests(ctx context.Context, db *storetest.DB) string {
	pool, err := pgxpool.New(ctx, db.OwnerURL)
	if err != nil {
		return err.Error()
	}
	defer pool.Close()
	for what, sql := range map[string]string{
		"jobs that have not succeeded":               "SELECT count(*) FROM jobs WHERE state <> 'succeeded'",
		"VMs that do not run":                        "SELECT count(*) FROM vms v WHERE job_id IS NOT NULL OR NOT EXISTS (SELECT FROM instances i WHERE i.vm_id = v.id AND i.owner_epoch = v.owner_epoch AND i.phase = 'running')",
		"VMs without exactly one creation on record": "SELECT count(*) FROM vms v WHERE 1 <> (SELECT count(*) FROM audit_log a WHERE a.action = 'vm.create' AND a.object_id = v.id)",
		"VMs without exactly one job":                "SELECT count(*) FROM vms v WHERE 1 <> (SELECT count(*) FROM jobs j WHERE j.target_id = v.id)",
		"unnumbered events":                          "SELECT count(*) FROM events WHERE seq IS NULL",
		"unchained audit records":                    "SELECT count(*) FROM audit_log WHERE seq IS NULL",
		"more or fewer VMs than were accepted":       fmt.Sprintf("SELECT count(*) - %d FROM vms", l.count()),
	} {
		var n int64
		if err := pool.QueryRow(ctx, sql).Scan(&n); err != nil {
			return err.Error()
		}
		if n != 0 {
			return fmt.Sprintf("%d %s", n, what)
		}
	}
	drift, err := store.New(pool).NodeUsageDrift(ctx)
	if err != nil || len(drift) > 0 {
		return fmt.Sprint(drift, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, job := range l.accepted {
		var has string
		if err := pool.QueryRow(ctx, "SELECT j.id FROM jobs j JOIN vms v ON v.id = j.target_id WHERE v.name = $1", name).Scan(&has); err != nil || has != job {
			return fmt.Sprintf("%s was accepted as job %s and has %s: %v", name, job, has, err)
		}
	}
	return ""
}

// underLoad makes a server on a database that may be hurt, with nodes and load.
func underLoad(t *testing.T) (*victim, *storetest.DB, *load) {
	t.Helper()
	// sockets need a short path, and the database's user goes through this folder
	dir, err := os.MkdirTemp("", "ncdb") //nolint:usetesting // a test's own folder is too long for sockets, and closed to other users
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return underLoadIn(t, dir)
}

func underLoadIn(t *testing.T, dir string) (*victim, *storetest.DB, *load) {
	t.Helper()
	v, db := newVictim(t, dir)
	r := start(t, db, t.TempDir())
	r.nodes(2)
	r.image("tiny")
	l := newLoad(r)
	l.more(10)
	return v, db, l
}

// The database is killed under load, again and again: what was acknowledged is
// durable, what was not known is settled by its key, and jobs go on by themselves.
func TestDatabaseKilled(t *testing.T) {
	t.Parallel()
	v, db, l := underLoad(t)
	for range 2 {
		v.kill()
		l.more(10)
	}
	v.down.Store(true)
	v.kill()
	l.during(10)
	v.down.Store(false)
	l.more(20)
	l.end(db)
}

// The database takes no writes, is slow, loses every race, or is locked: each
// request ends in an answer, and nothing is done by halves.
func TestDatabaseSick(t *testing.T) {
	t.Parallel()
	v, db, l := underLoad(t)
	const raise = `CREATE FUNCTION sick() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN %s; RETURN NEW; END $$`
	const on = `CREATE TRIGGER sick BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION sick()`
	sick := func(body string) { v.does(fmt.Sprintf(raise, body), on) }
	well := func() { v.does("DROP TRIGGER sick ON audit_log", "DROP FUNCTION sick") }
	for _, fault := range []struct {
		name       string
		sick, well func()
	}{
		{"read-only", func() {
			v.does("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
		}, func() { // by a session that may write
			v.does("SET default_transaction_read_only = off", "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
		}},
		{"slow", func() { sick("PERFORM pg_sleep(2)") }, well},
		{"serialization failures", func() { sick("RAISE EXCEPTION 'lost' USING ERRCODE = '40001'") }, well},
		{"deadlocks", func() { sick("RAISE EXCEPTION 'lost' USING ERRCODE = '40P01'") }, well},
		{"out of memory", func() { sick("RAISE EXCEPTION 'no memory' USING ERRCODE = '53200'") }, well},
		{"disk full", func() { sick("RAISE EXCEPTION 'no space' USING ERRCODE = '53100'") }, well},
	} {
		t.Logf("%s, after %d", fault.name, l.count())
		fault.sick()
		l.during(loaders * 2)
		fault.well()
		l.more(loaders * 2)
	}
	t.Logf("now and then, after %d", l.count())
	sick("IF random() < 0.4 THEN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END IF")
	l.more(20)
	well()
	l.end(db)
}

// The disk under the database is full, to the last page: PostgreSQL may even end.
// Nothing is done by halves, and when there is room again, all goes on.
func TestDatabaseDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a file system of the test's own takes root")
	}
	t.Parallel()
	dir, err := os.MkdirTemp("", "ncdb") //nolint:usetesting // a test's own folder is too long for sockets, and closed to other users
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=320m,mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		_ = os.RemoveAll(dir)
	})
	_, db, l := underLoadIn(t, dir)
	ballast := filepath.Join(dir, "ballast")
	if err := fillUp(ballast); err != nil {
		t.Fatal(err)
	}
	l.during(loaders * 4)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	l.more(10)
	l.end(db)
}

// fillUp writes a file until nothing more fits.
func fillUp(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		_, err := f.Write(make([]byte, size))
		switch {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case err != nil:
			return err
		}
	}
	return nil
}

// Whoever holds the table of servers holds up their membership: work is dropped,
// and taken up again.
func TestDatabaseLocked(t *testing.T) {
	t.Parallel()
	v, db, l := underLoad(t)
	conn, err := pgx.Connect(t.Context(), v.opts.AdminURL(pglocal.Database))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	tx, err := conn.Begin(t.Context())
	if err == nil {
		_, err = tx.Exec(t.Context(), "LOCK TABLE servers, jobs IN ACCESS EXCLUSIVE MODE")
	}
	if err != nil {
		t.Fatal(err)
	}
	l.during(1)
	l.r.until("the server says that it cannot work", 20*time.Second, func() bool {
		status, _ := l.r.raw("GET", "/readyz", nil)
		return status == http.StatusServiceUnavailable
	})
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.more(10)
	l.end(db)
}
