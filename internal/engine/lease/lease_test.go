package lease

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// hand is a member whose ticks the test makes by hand, under its own clock.
type hand struct {
	*Member
	clock *clock.Fake
	beat  int64
}

func byHand(t *testing.T, db *storetest.DB) *hand {
	t.Helper()
	c := clock.NewFake()
	m := NewMember(Options{Pool: db.App, Clock: c, Address: "here", Version: "test"})
	m.pool = db.App
	return &hand{Member: m, clock: c}
}

func (h *hand) doTick(t *testing.T) {
	t.Helper()
	h.beat++
	if err := h.tick(context.Background(), h.beat); err != nil {
		t.Fatal(err)
	}
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestDeadAfterTTLAndHolderGivesUpFirst(t *testing.T) {
	db := storetest.New(t)
	a, b := byHand(t, db), byHand(t, db)
	a.doTick(t)
	b.doTick(t)
	bound, cancel := a.Bind(context.Background())
	defer cancel()
	// a falls silent; both clocks go on
	gaveUp := time.Duration(-1)
	for at := time.Second; at <= 10*time.Second; at += time.Second {
		a.clock.Advance(time.Second)
		b.clock.Advance(time.Second)
		b.doTick(t)
		if gaveUp < 0 && !a.Valid() {
			gaveUp = at
		}
		if b.Dead(a.ID()) {
			if gaveUp < 0 || gaveUp >= at || at < TTL {
				t.Fatalf("declared dead after %v, gave up after %v", at, gaveUp)
			}
			break
		}
	}
	if !b.Dead(a.ID()) || b.Dead(b.ID()) {
		t.Fatal("silence for 10 s is not seen")
	}
	a.endHolds()
	if !errors.Is(context.Cause(bound), ErrExpired) {
		t.Errorf("cause %v", context.Cause(bound))
	}
	if late, _ := a.Bind(context.Background()); late.Err() == nil {
		t.Error("work was bound to a membership that ran out")
	}
	// it beats again, and is alive again, and acts once everyone knows
	a.doTick(t)
	if a.Valid() {
		t.Error("acts while others may still believe it dead")
	}
	for range 2 {
		a.clock.Advance(time.Second)
		b.clock.Advance(time.Second)
		a.doTick(t)
		b.doTick(t)
	}
	if b.Dead(a.ID()) || !a.Valid() {
		t.Error("beats did not bring it back")
	}
}

// A sick database, or a frozen observer, is never read as dead servers.
func TestJudgementIsSuspended(t *testing.T) {
	db := storetest.New(t)
	a, b := byHand(t, db), byHand(t, db)
	a.doTick(t)
	b.doTick(t)
	b.clock.Advance(time.Minute) // frozen
	if b.Dead(a.ID()) {
		t.Error("judged without looking")
	}
	b.doTick(t)
	if b.Dead(a.ID()) {
		t.Error("judged by one look after a minute away")
	}
	for range 2 {
		b.clock.Advance(time.Second)
		b.doTick(t)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.tick(ctx, 99); err == nil {
		t.Fatal("a tick without a database worked")
	}
	for range 3 {
		b.clock.Advance(time.Second)
		b.doTick(t)
		if b.Dead(a.ID()) {
			t.Error("judged less than a TTL after the database came back")
		}
	}
	b.clock.Advance(time.Second)
	b.doTick(t)
	if !b.Dead(a.ID()) {
		t.Error("never judged")
	}
}

// A holder that joined after the last look is not taken for one long gone.
func TestUnknownServerGetsATTL(t *testing.T) {
	db := storetest.New(t)
	b := byHand(t, db)
	b.doTick(t)
	stranger := id.New()
	for range 3 {
		if b.Dead(stranger) {
			t.Fatal("a stranger is dead at once")
		}
		b.clock.Advance(time.Second)
		b.doTick(t)
	}
	if !b.Dead(stranger) {
		t.Error("a stranger without a row lives for ever")
	}
}

func TestForget(t *testing.T) {
	ctx, db := context.Background(), storetest.New(t)
	a, b := byHand(t, db), byHand(t, db)
	a.doTick(t)
	for range 605 {
		b.clock.Advance(time.Second)
		b.doTick(t)
	}
	var rows int
	if err := db.App.QueryRow(ctx, "SELECT count(*) FROM servers").Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
	if !b.Dead(a.ID()) {
		t.Error("removing the row brought it to life")
	}
	// it only slept
	a.doTick(t)
	b.clock.Advance(time.Second)
	b.doTick(t)
	if b.Dead(a.ID()) {
		t.Error("it cannot come back")
	}
}

func TestLead(t *testing.T) {
	ctx, db := deadline(t), storetest.New(t)
	a, b := byHand(t, db), byHand(t, db)
	a.doTick(t)
	b.doTick(t)
	first, ok, err := a.campaign(ctx, "role")
	if err != nil || !ok || first.Number != 1 {
		t.Fatal(first, ok, err)
	}
	if _, ok, err := b.campaign(ctx, "role"); ok || err != nil {
		t.Fatal("two leaders", err)
	}
	check := func(term Term) error {
		return pgtx.Run(ctx, db.App, func(tx pgx.Tx) error { return term.Check(ctx, tx) })
	}
	if err := check(first); err != nil {
		t.Error(err)
	}
	for range 4 {
		b.clock.Advance(time.Second)
		b.doTick(t)
	}
	second, ok, err := b.campaign(ctx, "role")
	if err != nil || !ok || second.Number != 2 {
		t.Fatal(second, ok, err)
	}
	if err := check(first); !errors.Is(err, ErrLost) {
		t.Errorf("a write of the earlier term: %v", err)
	}
	if err := check(second); err != nil {
		t.Error(err)
	}
}

// With real clocks: one leads, it stops, the other takes over; kills are
// covered above.
func TestRun(t *testing.T) {
	ctx, db := deadline(t), storetest.New(t)
	type turn struct {
		who  id.ID
		term int64
	}
	turns := make(chan turn, 10)
	run := func() (*Member, context.CancelFunc, chan error) {
		m := NewMember(Options{Pool: db.App, Clock: clock.System{}, TTL: 600 * time.Millisecond})
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		led := make(chan struct{})
		go func() {
			m.Lead(ctx, "role", func(ctx context.Context, term Term) {
				turns <- turn{m.ID(), term.Number}
				<-ctx.Done()
			})
			close(led)
		}()
		go func() {
			err := m.Run(ctx)
			<-led
			done <- err
		}()
		return m, cancel, done
	}
	a, stopA, doneA := run()
	if got := <-turns; got.who != a.ID() || got.term != 1 {
		t.Fatal(got)
	}
	b, stopB, doneB := run()
	<-b.Ready()
	stopA()
	if err := <-doneA; err != nil {
		t.Fatal(err)
	}
	if got := <-turns; got.who != b.ID() || got.term != 2 {
		t.Fatal(got)
	}
	stopB()
	if err := <-doneB; err != nil {
		t.Fatal(err)
	}
	var rows int
	if err := db.App.QueryRow(ctx, "SELECT count(*) FROM servers").Scan(&rows); err != nil || rows != 0 {
		t.Errorf("%d rows left, %v", rows, err)
	}
}

// Whatever the pauses, clock rates within a tenth and outages: nobody is declared
// dead while it believes to be valid.
func TestNeverBoth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		holder, observer := clock.NewFake(), clock.NewFake()
		me, other := id.New(), id.New()
		w := newWatch(other, TTL, observer.Boot)
		var beat int64
		var v validity
		var joined bool
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			d := time.Duration(rapid.IntRange(1, 1500).Draw(t, "ms")) * time.Millisecond
			holder.Advance(d)
			observer.Advance(d)
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0: // the beat is sent now and lands a while later
				sent := holder.Boot()
				lag := time.Duration(rapid.IntRange(0, 900).Draw(t, "lag")) * time.Millisecond
				holder.Advance(lag)
				observer.Advance(lag)
				beat++
				joined = true
				v.extend(sent, holder.Boot(), TTL)
			case 1, 2:
				seen := map[id.ID]int64{}
				if joined {
					seen[me] = beat
				}
				w.look(seen)
			case 3:
				w.suspend()
			}
			// others ask only about servers that hold something, which is those that
			// were valid since they joined
			if joined && w.dead(me) && v.at(holder.Boot()) {
				t.Fatalf("declared dead %v before it gives up", v.until-holder.Boot())
			}
		}
	})
}
