package server

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// denials writes refusals to the audit log, of each kind the first in a minute as
// it comes and the others as one record with their number: whoever makes requests
// that are refused must not make the log grow as he likes.
type denials struct {
	clock clock.Clock
	// write records one.
	write func(ctx context.Context, c control.Caller, action, object string, detail map[string]any)

	mu     sync.Mutex
	minute map[denial]*denied
	// others are those for which there was no room.
	others int64
}

// denial is what counts as the same.
type denial struct{ name, from, action string }

// denied is what happened of it within the minute.
type denied struct {
	caller control.Caller
	since  time.Time
	// more came after the one that is on record.
	more int64
}

const (
	// denialsEvery is how often what came more than once is written.
	denialsEvery = time.Minute
	// mostDenials of different kinds are kept apart within a minute.
	mostDenials = 1000
	// flushTimeout bounds writing them.
	flushTimeout = 10 * time.Second
)

// note records a refusal.
func (d *denials) note(ctx context.Context, c control.Caller, action, object string) {
	if d.first(c, action, 0) {
		d.write(context.WithoutCancel(ctx), c, action, object, nil)
	}
}

// count counts a refusal without writing anything now.
func (d *denials) count(c control.Caller, action string) { d.first(c, action, 1) }

// first tells whether it is the first of its kind; others are counted.
func (d *denials) first(c control.Caller, action string, counts int64) bool {
	host, _, err := net.SplitHostPort(c.Origin)
	if err == nil {
		c.Origin = host
	}
	k := denial{c.Name, c.Origin, action}
	if c.Role == auth.Anonymous {
		k.from = addressOf(net.JoinHostPort(host, "0")).String()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.minute[k]; e != nil {
		e.more++
		return false
	}
	if len(d.minute) >= mostDenials {
		d.others++
		return false
	}
	if d.minute == nil {
		d.minute = map[denial]*denied{}
	}
	d.minute[k] = &denied{caller: c, since: d.clock.Now(), more: counts}
	return counts == 0
}

// run writes what came more than once, each minute and at the end.
func (d *denials) run(ctx context.Context) {
	clock.Every(ctx, d.clock, denialsEvery, d.flush)
	d.flush(ctx)
}

func (d *denials) flush(ctx context.Context) {
	d.mu.Lock()
	minute, others := d.minute, d.others
	d.minute, d.others = nil, 0
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	for k, e := range minute {
		if e.more > 0 {
			e.caller.RequestID = "" // they had one each
			d.write(ctx, e.caller, k.action, "", map[string]any{"requests": e.more, "since": e.since})
		}
	}
	if others > 0 {
		var c control.Caller
		c.Name, c.Role, c.Origin = "others", auth.Anonymous, "many"
		d.write(ctx, c, actionAuthenticate, "", map[string]any{"requests": others})
	}
}
