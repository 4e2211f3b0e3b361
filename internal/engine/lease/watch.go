package lease

import (
	"sync"
	"time"

	"github.com/novacron/novacron/internal/vocab/id"
)

// watch judges the other servers by their beats and this server's own clock.
type watch struct {
	me   id.ID
	ttl  time.Duration
	boot func() time.Duration

	mu     sync.Mutex
	others map[id.ID]*sighting
	// proven are servers whose process is known to be gone
	proven map[id.ID]bool
	// last is when the beats were last read, and whether that view is unbroken
	last   time.Duration
	steady bool
}

// sighting is what is known of one server.
type sighting struct {
	beat  int64
	since time.Duration // when this beat was first seen
	// silent as judged by the last look, not by the moment of asking: a frozen
	// process that thaws must look again before it judges
	silent time.Duration
}

// validity is when this server may act, on its own clock.
type validity struct{ from, until time.Duration }

func (v *validity) at(now time.Duration) bool { return v.from <= now && now < v.until }

// extend takes in a beat that was sent and has arrived by now. After a lapse
// others may have judged this server dead, by looks that are good for another
// 2/3 TTL: until then it may beat, and not act. lapsed tells of it.
func (v *validity) extend(sent, now, ttl time.Duration) (lapsed bool) {
	lapsed = v.until > 0 && now >= v.until
	if lapsed {
		v.from = now + ttl*2/3
	}
	v.until = sent + ttl*2/3
	return lapsed
}

// absent is the beat of a server that has no row.
const absent = -1

func newWatch(me id.ID, ttl time.Duration, boot func() time.Duration, proven ...id.ID) *watch {
	w := &watch{me: me, ttl: ttl, boot: boot, others: map[id.ID]*sighting{}, proven: map[id.ID]bool{}}
	for _, server := range proven {
		w.proven[server] = true
	}
	return w
}

// suspend breaks the view: everyone gets a full TTL once reading works again.
func (w *watch) suspend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steady = false
}

// look takes in the beats as just read.
func (w *watch) look(beats map[id.ID]int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.boot()
	// a gap longer than two periods means that this process itself was away
	steady := w.steady && now-w.last <= w.ttl*2/3
	w.last, w.steady = now, true
	for server, s := range w.others {
		beat, ok := beats[server]
		if !ok {
			beat = absent
		}
		// a row that went away is no sign of life
		if (beat != s.beat && beat != absent) || !steady {
			s.since = now
		}
		s.beat, s.silent = beat, now-s.since
	}
	for server, beat := range beats {
		if _, known := w.others[server]; !known && server != w.me {
			w.others[server] = &sighting{beat: beat, since: now}
		}
	}
}

func (w *watch) dead(server id.ID) bool {
	if server == w.me {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.proven[server] {
		return true
	}
	s, known := w.others[server]
	if !known {
		// perhaps it joined after the last look, perhaps its row is long gone: it
		// gets a full TTL like everyone
		w.others[server] = &sighting{beat: absent, since: w.boot()}
		return false
	}
	fresh := w.steady && w.boot()-w.last <= w.ttl*2/3
	return fresh && s.silent >= w.ttl
}

// silent lists servers with a row whose beat stood still for d, and lets go of
// those without a row for twice as long.
func (w *watch) silent(d time.Duration) []id.ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	var old []id.ID
	for server, s := range w.others {
		switch {
		case s.beat != absent && s.silent >= d:
			old = append(old, server)
		case s.beat == absent && s.silent >= 2*d:
			delete(w.others, server)
		}
	}
	return old
}
