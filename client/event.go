package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"github.com/novacron/novacron/api"
)

// FromNow asks for the events that happen from now on.
const FromNow int64 = -1

// seqHeader is how the server says after which number a stream begins, so that
// a stream "from now" resumes at the right place even before its first event.
const seqHeader = "Novacron-Event-Seq"

const (
	maxEvent  = 4 << 20
	pingEvery = 15 * time.Second
	pingWait  = 10 * time.Second
	// streamPatience is how long a broken stream is dialled again.
	streamPatience = 10 * time.Minute
)

// Events follows what happens, in the one order every reader sees, after the
// event with the number given. A broken connection is made again and resumes
// after the last event that was given out: nothing is left out, nothing comes
// twice. The sequence ends when the caller stops, when ctx ends, or with an error
// that trying again does not mend.
func (c *Client) Events(ctx context.Context, after int64) iter.Seq2[api.Event, error] {
	return func(yield func(api.Event, error) bool) {
		s := &stream{c: c, last: after}
		for ctx.Err() == nil {
			lost := now()
			err := s.connect(ctx)
			if err != nil {
				if ctx.Err() == nil {
					yield(api.Event{}, err)
				}
				return
			}
			if !s.deliver(ctx, yield) {
				return
			}
			if now().Sub(lost) < backoffFirst && sleep(ctx, backoff(s.short)) != nil {
				return
			}
		}
	}
}

// stream is a reader's place in the order of events.
type stream struct {
	c    *Client
	conn *websocket.Conn
	last int64
	// short counts connections in a row that gave nothing.
	short int
}

// connect dials until a server takes the stream.
func (s *stream) connect(ctx context.Context) error {
	deadline := now().Add(streamPatience)
	for n := 0; ; n++ {
		conn, resp, err := s.c.websocket(ctx, "/events", s.query()) //nolint:bodyclose // the library closes it
		if err == nil {
			s.conn = conn
			s.conn.SetReadLimit(maxEvent)
			s.anchor(resp)
			return nil
		}
		t, ok := errors.AsType[*tried](err)
		if !ok {
			return err
		}
		if !t.again || now().After(deadline) || sleep(ctx, max(backoff(n), t.wait)) != nil {
			return t.err
		}
	}
}

// anchor learns where a stream from now on begins.
func (s *stream) anchor(resp *http.Response) {
	if s.last >= 0 || resp == nil {
		return
	}
	if n, err := strconv.ParseInt(resp.Header.Get(seqHeader), 10, 64); err == nil {
		s.last = n
	}
}

func (s *stream) query() url.Values {
	if s.last < 0 {
		return nil
	}
	return url.Values{"after": {strconv.FormatInt(s.last, 10)}}
}

// deliver gives out events until the connection ends; false if the caller wants
// no more.
func (s *stream) deliver(ctx context.Context, yield func(api.Event, error) bool) bool {
	life, end := context.WithCancel(ctx)
	defer end()
	defer func() { _ = s.conn.CloseNow() }()
	go keepAlive(life, s.conn)
	s.short++
	for {
		_, data, err := s.conn.Read(life)
		if err != nil {
			return ctx.Err() == nil
		}
		var ev api.Event
		if err := json.Unmarshal(data, &ev); err != nil {
			yield(ev, fail(CodeBadAnswer, "an event cannot be read; is this a NovaCron server of this version?", err))
			return false
		}
		if ev.Seq <= s.last {
			continue // a resumed stream may repeat
		}
		s.last, s.short = ev.Seq, 0
		if !yield(ev, nil) {
			_ = s.conn.Close(websocket.StatusNormalClosure, "")
			return false
		}
	}
}

// keepAlive ends a connection whose other end is gone without a word.
func keepAlive(ctx context.Context, conn *websocket.Conn) {
	for sleep(ctx, pingEvery) == nil {
		wait, cancel := context.WithTimeout(ctx, pingWait)
		err := conn.Ping(wait)
		cancel()
		if err != nil {
			_ = conn.CloseNow()
			return
		}
	}
}

// websocket makes one try to open a WebSocket at the current server.
func (c *Client) websocket(ctx context.Context, path string, query url.Values) (*websocket.Conn, *http.Response, error) {
	at := c.current.Load()
	target := c.bases[at] + prefix + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	h := http.Header{}
	c.head(h)
	dial, cancel := context.WithTimeout(ctx, dialTimeout+handshakeTimeout)
	defer cancel()
	conn, resp, err := websocket.Dial(dial, target, &websocket.DialOptions{HTTPClient: c.http, HTTPHeader: h})
	if err == nil {
		return conn, resp, nil
	}
	c.moveFrom(at)
	if resp != nil && resp.StatusCode >= http.StatusBadRequest {
		return nil, nil, problem(resp)
	}
	if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, nil, fail(CodeBadAnswer, "the server does not open a WebSocket; is this a NovaCron server?", err)
	}
	return nil, nil, c.unreachable(c.bases[at], err, false)
}

// closed tells how a WebSocket's end is seen by a reader: io.EOF when the other
// side was done.
func closed(err error) error {
	ce, said := errors.AsType[websocket.CloseError](err)
	switch {
	case said && ce.Code == websocket.StatusNormalClosure:
		return io.EOF
	case said && ce.Reason != "":
		return &failure{public: &api.Error{
			Title: "the connection was ended", Detail: ce.Reason,
			Code: CodeUnreachable, Retryable: true,
		}}
	default:
		return fail(CodeUnreachable, "the connection broke off", err)
	}
}
