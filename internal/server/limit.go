package server

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/engine/admit"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Limits bound what a server takes at once, and from whom. What is zero is the
// default.
type Limits struct {
	// ImportNetworks are private networks that files may be read from by their URL.
	ImportNetworks []netip.Prefix
	// AccountRate is how many requests one account may make per second; twice as many
	// at once.
	AccountRate float64
	// AddressRate is how many requests without a good credential one address may make
	// per second, 30 times as many at once.
	AddressRate float64
	// Requests is how many are worked on at once; by default as many as the server has
	// connections to its database.
	Requests int
	// NodeRate is how many calls one node's agent may make per second, ten times as many
	// at once; one that makes more is put into quarantine.
	NodeRate float64
	// Streams is how many streams, uploads and waits there may be at once.
	Streams int
	// Relays is how many connections this server joins at once between nodes that do not
	// reach each other; fewer than 0 for none. A live migration has up to about ten.
	Relays int
	// RelayRate is how many bytes per second all of them carry together, in both
	// directions; 0 for as many as there are.
	RelayRate int64
}

// The defaults. ADR 0044 says where they come from.
const (
	DefaultAccountRate = 10_000
	DefaultAddressRate = 10
	DefaultStreams     = 4096
	DefaultNodeRate    = 1000
	DefaultRelays      = 128
	// addressBurst is the tries that an address has at once, per one per second, and
	// leastBurst what it always has.
	addressBurst, leastBurst = 30, 6
	// strangersAtOnce are worked on at once, and readers of health and metrics.
	strangersAtOnce, vitalAtOnce = 4, 4
	// mostAddresses and mostAccounts have a bucket of their own.
	mostAddresses, mostAccounts = 1 << 16, 1 << 14
	// knownFor is how long a credential counts as known after it was good last, and
	// mostKnown are.
	knownFor  = time.Hour
	mostKnown = 1 << 14
)

// lines are how many requests may wait for their turn, and for how long.
func lines(places int) admit.Bounds {
	return admit.Bounds{Places: places, Line: 1024, Waiting: 4096, Patience: 10 * time.Second}
}

func (l Limits) or(connections int) Limits {
	if l.AccountRate == 0 {
		l.AccountRate = DefaultAccountRate
	}
	if l.AddressRate == 0 {
		l.AddressRate = DefaultAddressRate
	}
	if l.NodeRate == 0 {
		l.NodeRate = DefaultNodeRate
	}
	if l.Requests == 0 {
		l.Requests = connections
	}
	if l.Streams == 0 {
		l.Streams = DefaultStreams
	}
	if l.Relays == 0 {
		l.Relays = DefaultRelays
	}
	return l
}

func (l Limits) check() error {
	for name, n := range map[string]float64{
		"account-rate": l.AccountRate, "address-rate": l.AddressRate, "node-rate": l.NodeRate, "max-requests": float64(l.Requests), "max-streams": float64(l.Streams),
	} {
		if !(n >= 0 && n <= mostLimit) {
			return errs.New(errs.OutOfRange, "%s is a number up to %d", name, mostLimit)
		}
	}
	if l.Relays < -1 || l.Relays > mostLimit || l.RelayRate < 0 {
		return errs.New(errs.OutOfRange, "max-relays is a number from -1 to %d, and relay-bandwidth is not negative", mostLimit)
	}
	return nil
}

// mostLimit is more than any machine answers.
const mostLimit = 1_000_000

// Why a request was refused, for the metrics.
const (
	refusedAccount = "account_rate"
	refusedAddress = "address_rate"
	refusedBusy    = "busy"
	refusedStreams = "streams"
)

// limits decides which requests are taken. Who is known has places of its own;
// strangers share a few, and health and metrics have theirs, so that neither
// strangers nor a flood of requests stand before them.
type limits struct {
	clock     clock.Clock
	accounts  *admit.Buckets[string]
	addresses *admit.Buckets[netip.Prefix]
	work      *admit.Fair[string]
	vital     *admit.Fair[string]
	streams   *admit.Fair[string]
	strangers *admit.Fair[netip.Prefix]
	known     *acquaintances
	// refused counts refusals by reason.
	refused func(reason string)
}

func newLimits(l Limits, connections int, c clock.Clock, refused func(string)) *limits {
	l = l.or(connections)
	streams := lines(l.Streams)
	streams.Line = 0 // who has that many open does not wait for another
	return &limits{
		clock: c, refused: refused, known: &acquaintances{clock: c, names: map[string]sight{}},
		accounts:  admit.NewBuckets[string](l.AccountRate, int(2*l.AccountRate), mostAccounts),
		addresses: admit.NewBuckets[netip.Prefix](l.AddressRate, max(int(addressBurst*l.AddressRate), leastBurst), mostAddresses),
		work:      admit.NewFair[string](lines(l.Requests), c),
		vital:     admit.NewFair[string](lines(vitalAtOnce), c),
		strangers: admit.NewFair[netip.Prefix](lines(strangersAtOnce), c),
		streams:   admit.NewFair[string](streams, c),
	}
}

// claim is who a request says it is from, before anything was looked up.
type claim struct {
	// account is whom its credential spoke for when it was good last; empty for a
	// stranger.
	account string
	address netip.Prefix
	// secret is what its credential is known by; empty without one.
	secret string
	// once: is it good for one request alone?
	once bool
}

func (l *limits) claim(r *http.Request) claim {
	if who, ok := socketAccount(r); ok {
		return claim{account: who}
	}
	c := claim{address: addressOf(r.RemoteAddr)}
	if h := r.Header.Get("Authorization"); h != "" {
		c.secret = string(pki.HashSecret(strings.TrimPrefix(h, "Bearer ")))
		c.account = l.known.account(c.secret)
	} else if t := consoleTicket(r); t != "" {
		c.secret, c.once = string(pki.HashSecret(t)), true
	}
	return c
}

// addressOf is the network that a peer's address counts as: an IPv6 host has a /64
// of addresses. Headers are not asked: whoever sends them may say anything.
func addressOf(remote string) netip.Prefix {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	ip := at.Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, _ := ip.Prefix(bits)
	return p
}

// knock lets a stranger in, or refuses one whose address has shown too many bad
// credentials. spend takes a try from the address now.
func (l *limits) knock(ctx context.Context, from netip.Prefix, spend bool) (leave func(), err error) {
	take := l.addresses.Peek
	if spend {
		take = l.addresses.Take
	}
	if wait, ok := take(from, l.clock.Boot()); !ok {
		return nil, l.refuse(refusedAddress, wait, "too many requests without a good credential come from this address: wait, or show a token that was good before")
	}
	leave, err = l.strangers.Enter(ctx, from)
	return leave, l.full(err, refusedBusy, "the server has as many requests without a known credential as it takes at once: try again")
}

// failed takes a try from an address that showed a bad credential.
func (l *limits) failed(from netip.Prefix) { _, _ = l.addresses.Take(from, l.clock.Boot()) }

// enter gives a known account's request its place.
func (l *limits) enter(ctx context.Context, rt Route, account string) (leave func(), err error) {
	if wait, ok := l.accounts.Take(account, l.clock.Boot()); !ok {
		return nil, l.refuse(refusedAccount, wait, "this account makes more requests than are taken from one: wait, and make fewer")
	}
	places := l.work
	if rt.vital {
		places = l.vital
	}
	leave, err = places.Enter(ctx, account)
	return leave, l.full(err, refusedBusy, "this account has more requests under way than are taken from one: wait for some to be answered")
}

// look lets somebody see whether the server is well, whoever it is.
func (l *limits) look(ctx context.Context, from netip.Prefix) (leave func(), err error) {
	leave, err = l.vital.Enter(ctx, from.String())
	return leave, l.full(err, refusedBusy, "too many ask at once whether the server is well: try again")
}

// stay gives a request that lasts one of the places for such.
func (l *limits) stay(ctx context.Context, account string) (leave func(), err error) {
	leave, err = l.streams.Enter(ctx, account)
	return leave, l.full(err, refusedStreams, "this account has more streams, uploads and waits open than are taken from one: end some")
}

// full words why no place was given.
func (l *limits) full(err error, reason, text string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, admit.ErrFull), errors.Is(err, admit.ErrLate):
		return l.refuse(reason, time.Second, text)
	default:
		return errs.New(errs.Cancelled, "the client has gone").Because(err)
	}
}

func (l *limits) refuse(reason string, wait time.Duration, text string) error {
	l.refused(reason)
	return errs.New(errs.RateLimited, "%s", text).After(wait)
}

// acquaintances are credentials that were good lately, by their hashes: a flood of bad
// ones from the same address does not keep their owners out. Each is still looked
// up for every request.
type acquaintances struct {
	clock clock.Clock
	mu    sync.Mutex
	names map[string]sight
}

type sight struct {
	account string
	at      time.Duration
}

// account is whom a credential spoke for; empty when it is not known.
func (k *acquaintances) account(secret string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, ok := k.names[secret]
	if !ok || k.clock.Boot()-s.at > knownFor {
		return ""
	}
	return s.account
}

// good notes that a credential was good, bad that it was not.
func (k *acquaintances) good(secret, account string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clock.Boot()
	if _, ok := k.names[secret]; !ok && len(k.names) >= mostKnown {
		for s, seen := range k.names {
			if now-seen.at > knownFor {
				delete(k.names, s)
			}
		}
		if len(k.names) >= mostKnown {
			return // it stays a stranger, which is slower and no worse
		}
	}
	k.names[secret] = sight{account, now}
}

func (k *acquaintances) bad(secret string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.names, secret)
}

// visit is a request's way through the limits.
type visit struct {
	work, stay func()
	// later, unless nil, gives it its place once its body has come.
	later func() error
}

// park gives the request's place at work to others: what follows is waiting.
func (r *Request) park() {
	if r.visit.work != nil {
		r.visit.work()
	}
}

// leave gives everything back.
func (v *visit) leave() {
	for _, f := range []func(){v.work, v.stay} {
		if f != nil {
			f()
		}
	}
}

// lasts tells whether a request may go on for long without working.
func lasts(rt Route, r *http.Request) bool {
	return rt.Need.Resource != auth.Public && !rt.vital && (rt.stream != "" || r.URL.Query().Has("wait"))
}
