package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/near"
)

// Route is one line of the table: what the gate, the API document and the route
// matrix know.
type Route struct {
	Method, Path string
	// ID is the operation's name in the API document.
	ID      string
	Summary string
	Need    auth.Need
	// Query lists the parameters it takes; others are refused.
	Query []Param
	// Status of success; 200 when 0.
	Status int
	// body and reply types, for the API document; nil for none or for a stream.
	body, reply reflect.Type
	// stream says what a route without a reply type sends or takes.
	stream string
	// bytes: is its body a file's bytes?
	bytes bool
	// patience is how long a client may not read, if not writeTimeout.
	patience time.Duration
	// vital: is it to be answered however many other requests there are?
	vital bool
	// free: does it cost so little that nobody is asked who he is?
	free bool

	serve func(w http.ResponseWriter, r *Request) error
}

// Param is one query parameter.
type Param struct {
	Name, Doc string
}

// Request is what a handler gets.
type Request struct {
	*http.Request
	Caller control.Caller
	// visit is what it holds of the server's places.
	visit visit
}

// Arg is a path parameter.
func (r *Request) Arg(name string) string { return r.PathValue(name) }

// reply is what a handler answers with.
type reply[T any] struct {
	Body T
	// Status, when not 0, stands before the route's own.
	Status int
	// ETag is the document's revision; 0 for none.
	ETag int64
}

// none is the body of requests without one.
type none struct{}

// handle makes a route of a function from a body to a reply.
func handle[B, T any](rt Route, f func(ctx context.Context, r *Request, body B) (reply[T], error)) Route {
	if b := reflect.TypeFor[B](); b != reflect.TypeFor[none]() {
		rt.body = b
	}
	if t := reflect.TypeFor[T](); t != reflect.TypeFor[none]() {
		rt.reply = t
	}
	rt.serve = func(w http.ResponseWriter, r *Request) error {
		var body B
		if err := readBody(w, r, rt, &body); err != nil {
			return err
		}
		out, err := f(r.Context(), r, body)
		if err != nil {
			return err
		}
		writeReply(w, rt, out)
		return nil
	}
	return rt
}

func writeReply[T any](w http.ResponseWriter, rt Route, out reply[T]) {
	status := out.Status
	if status == 0 {
		status = rt.Status
	}
	if status == 0 {
		status = http.StatusOK
	}
	w.Header().Set("Cache-Control", "no-store")
	if out.ETag > 0 {
		w.Header().Set("ETag", strconv.Quote(strconv.FormatInt(out.ETag, 10)))
	}
	if rt.reply == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(out.Body) //nolint:errchkjson // the client may be gone
}

// readBody reads a JSON body where the route takes one, and binds the request's
// idempotency key to it.
func readBody(w http.ResponseWriter, r *Request, rt Route, into any) error {
	body, err := readAll(w, r)
	if err != nil {
		return err
	}
	readBy(w, time.Time{}) // what the gate has set; on failure, the rest has no more time
	if err := arrived(r, body); err != nil {
		return err
	}
	if rt.body == nil {
		if len(body) > 0 && strings.TrimSpace(string(body)) != "{}" {
			return errs.New(errs.InvalidJSON, "this request takes no body")
		}
		return nil
	}
	if len(body) == 0 && optionalBody(rt) {
		return nil
	}
	if ct, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || ct != "application/json" {
		return errs.New(errs.UnsupportedMedia, "the body must be application/json")
	}
	return decodeStrict(body, into)
}

// readAll reads a body, unless it says already that it is too large.
func readAll(w http.ResponseWriter, r *Request) ([]byte, error) {
	if r.ContentLength > maxBody {
		return nil, errs.New(errs.TooLarge, "the body is larger than %d bytes", maxBody)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, errs.New(errs.TooLarge, "the body is larger than %d bytes or broke off", maxBody).Because(err)
	}
	return body, nil
}

// plain refuses a body that is encoded: it would have to be unpacked before anybody
// knows how large it is.
func plain(r *http.Request) error {
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return errs.New(errs.UnsupportedMedia, "the Content-Encoding %q is not taken: send the body as it is", errs.Clip(e))
	}
	return nil
}

// arrived goes on once the body is there: the request takes its place, if it was
// not to take one before, and its key stands for what it asks.
func arrived(r *Request, body []byte) error {
	if r.visit.later != nil {
		if err := r.visit.later(); err != nil {
			return err
		}
	}
	return bindKey(r, body)
}

// bindKey binds the request's idempotency key to what it asks.
func bindKey(r *Request, body []byte) error {
	key := r.Header.Get("Idempotency-Key")
	if key == "" {
		return nil
	}
	if len(key) > 255 || !storable(key) {
		return errs.New(errs.InvalidField, "an Idempotency-Key is up to 255 characters of text")
	}
	r.Caller.Key, r.Caller.Hash = key, control.HashRequest(r.Method, r.URL.Path, body)
	return nil
}

// optionalBody: actions take their parameters or none.
func optionalBody(rt Route) bool { return strings.Count(rt.Path, "/") > 4 }

// gate wraps every route: who asks, may they, and only then the handler.
type gate struct {
	log   *slog.Logger
	meter *meter
	// patience is how long a body may take; bodyTimeout if 0
	patience time.Duration
	// authenticate finds the principal of a request.
	authenticate func(*http.Request) (auth.Principal, error)
	limits       *limits
	denials      *denials
}

// requestIDHeader goes out with every answer.
const requestIDHeader = "X-Request-ID"

func (g *gate) wrap(rt Route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		requestID := id.New().String()
		w.Header().Set(requestIDHeader, requestID)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mw, end := g.meter.begin(g.bounded(w, rt), rt)
		w = mw
		defer end()
		defer g.recover(w, rt, requestID)
		if err := g.pass(w, hr, rt, requestID); err != nil {
			err = cutOff(hr.Context(), err)
			p := problem(err, requestID)
			// who has gone needs no answer, and is no failure of ours
			if p.Status >= http.StatusInternalServerError && hr.Context().Err() == nil {
				g.log.Log(hr.Context(), gravity(err), "a request failed", "route", rt.ID, "request_id", requestID, "err", err)
			}
			retryAfter(w, err)
			writeProblem(w, p)
		}
	})
}

// gravity is the level at which a failure is logged. What only took longer than somebody
// would wait, as a program in a guest may, is none of the server's.
func gravity(err error) slog.Level {
	if errs.CodeOf(err) == errs.Timeout {
		return slog.LevelWarn
	}
	return slog.LevelError
}

// cutOff words the failure of a request that ended before it was answered: its
// client has gone, or this server stops.
func cutOff(ctx context.Context, err error) error {
	if ctx.Err() == nil || errs.CodeOf(err) != errs.Internal {
		return err
	}
	return errs.New(errs.DBUnavailable, "this server stops: ask again, or another one; whether a change was made is to be seen from what it changes").Because(err)
}

func (g *gate) pass(w http.ResponseWriter, hr *http.Request, rt Route, requestID string) error {
	r := &Request{Request: hr, Caller: control.Caller{RequestID: requestID}}
	defer func() { r.visit.leave() }()
	if err := g.identify(r, rt); err != nil {
		return err
	}
	if err := g.allowed(hr.Context(), r, rt); err != nil {
		return err
	}
	if err := errors.Join(known(hr, rt), plain(hr)); err != nil {
		return err
	}
	if !storable(hr.URL.Path) {
		return errs.New(errs.NotFound, "there is nothing at %s", errs.Clip(hr.URL.Path))
	}
	if rt.stream == "" {
		readBy(w, clock.Deadline(cmp.Or(g.patience, bodyTimeout)))
	}
	return rt.serve(w, r)
}

// storable tells whether the database can hold a text, and so whether it can be
// the name of anything.
func storable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// known refuses query parameters the route does not take: a misspelt filter must
// not become no filter.
func known(r *http.Request, rt Route) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return errs.New(errs.InvalidFilter, "the query string is not well formed").Because(err)
	}
	var names []string
	for _, p := range rt.Query {
		names = append(names, p.Name)
	}
	for k, values := range q {
		if !storable(values[0]) {
			return errs.New(errs.InvalidFilter, "the parameter %q is not text", errs.Clip(k))
		}
		if len(values) > 1 {
			return errs.New(errs.InvalidFilter, "the parameter %q stands here %d times", errs.Clip(k), len(values))
		}
		if !slices.Contains(names, k) {
			return errs.New(errs.InvalidFilter, "there is no parameter %q here%s", errs.Clip(k), near.Hint(k, slices.Values(names))).
				At(errs.Field{Pointer: errs.Clip(k), Message: "is no parameter", Limit: strings.Join(names, ", ")})
		}
	}
	return nil
}

func (g *gate) recover(w http.ResponseWriter, rt Route, requestID string) {
	v := recover()
	if v == nil || v == http.ErrAbortHandler { //nolint:errorlint // the value net/http defines
		return
	}
	g.log.Error("a handler panicked", "route", rt.ID, "request_id", requestID, "panic", v)
	writeProblem(w, problem(errs.New(errs.Internal, "an internal error happened; the server's log has it under this request's id"), requestID))
}

// etag reads If-Match: a revision, or nil when it is absent or '*'.
func etag(r *Request) (*int64, error) {
	h := strings.TrimSpace(r.Header.Get("If-Match"))
	if h == "" || h == "*" {
		return nil, nil
	}
	n, err := strconv.ParseInt(strings.Trim(h, `"`), 10, 64)
	if err != nil {
		return nil, errs.New(errs.InvalidField, "If-Match is a revision in quotes, as ETag gave it").Because(err)
	}
	return &n, nil
}
