package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/novacron/novacron/api"
)

const (
	prefix = "/api/v1"
	// attemptTimeout bounds one try of a call with a JSON answer; it is longer than
	// any ?wait.
	attemptTimeout = 75 * time.Second
	maxAnswer      = 64 << 20
	maxProblem     = 1 << 20
)

// request is one call to make, perhaps several times.
type request struct {
	method, path string
	query        url.Values
	header       http.Header
	body         []byte
	// raw replaces body by a stream that is opened anew for each try.
	raw  func() io.ReadCloser
	size int64
	// safe: may it be sent again although an earlier try may have arrived?
	safe bool
	// limit of one try, if not attemptTimeout.
	limit time.Duration
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var out T
	err := c.do(ctx, request{method: http.MethodGet, path: path, safe: true}, &out)
	return out, err
}

// create posts a document under a key that makes doing it twice the same as
// doing it once.
func create[T any](ctx context.Context, c *Client, path string, doc any) (T, error) {
	var out T
	body, err := json.Marshal(doc)
	if err != nil {
		return out, fail(CodeInvalidConfig, "the request cannot be written as JSON", err)
	}
	r := request{method: http.MethodPost, path: path, body: body, safe: true, header: http.Header{}}
	r.header.Set("Idempotency-Key", rand.Text())
	err = c.do(ctx, r, &out)
	return out, err
}

// post asks for an action; doc may be nil.
func post[T any](ctx context.Context, c *Client, path string, query url.Values, doc any) (T, error) {
	var out T
	r := request{method: http.MethodPost, path: path, query: query}
	if doc != nil {
		body, err := json.Marshal(doc)
		if err != nil {
			return out, fail(CodeInvalidConfig, "the request cannot be written as JSON", err)
		}
		r.body = body
	}
	err := c.do(ctx, r, &out)
	return out, err
}

func remove[T any](ctx context.Context, c *Client, path string) (T, error) {
	var out T
	err := c.do(ctx, request{method: http.MethodDelete, path: path}, &out)
	return out, err
}

// do makes the call and decodes its answer into out.
func (c *Client) do(ctx context.Context, r request, out any) error {
	return c.repeat(ctx, r, func(ctx context.Context) error {
		limit := max(attemptTimeout, r.limit)
		if r.raw != nil {
			limit = 24 * time.Hour // as long as the upload takes
		}
		try, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		resp, err := c.once(try, r)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		return decode(resp, out)
	})
}

// open makes the call and gives the body of its answer as a stream.
func (c *Client) open(ctx context.Context, r request) (io.ReadCloser, error) {
	var body io.ReadCloser
	err := c.repeat(ctx, r, func(ctx context.Context) error {
		resp, err := c.once(ctx, r) //nolint:bodyclose // the caller closes it
		if err == nil {
			body = resp.Body
		}
		return err
	})
	return body, err
}

// tried is the failure of one try.
type tried struct {
	err error
	// sent: may the server have seen the request?
	sent bool
	// again: could another try, or another server, do better?
	again bool
	// wait is what the server asked for.
	wait time.Duration
}

// Error implements error.
func (t *tried) Error() string { return t.err.Error() }

// repeat runs a try until it succeeds, cannot succeed, or time is up.
func (c *Client) repeat(ctx context.Context, r request, try func(context.Context) error) error {
	deadline := now().Add(c.cfg.RetryFor)
	for n := 0; ; n++ {
		err := try(ctx)
		if err == nil {
			return nil
		}
		t, ok := errors.AsType[*tried](err)
		if !ok {
			return err
		}
		wait := backoff(n)
		if t.wait > 0 {
			wait += t.wait // all who were turned away at once must not come back at once
		}
		switch {
		case ctx.Err() != nil:
			return fail(CodeInterrupted, "the request was interrupted", ctx.Err())
		case !t.again || (t.sent && !r.safe), now().Add(wait).After(deadline):
			return t.err
		}
		if err := sleep(ctx, wait); err != nil {
			return t.err
		}
	}
}

// once makes one try at the current server.
func (c *Client) once(ctx context.Context, r request) (*http.Response, error) {
	at := c.current.Load()
	var sent atomic.Bool // told from the goroutine that writes
	trace := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
	req, err := c.newRequest(trace, c.bases[at], r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.moveFrom(at)
		return nil, c.unreachable(c.bases[at], err, sent.Load())
	}
	if resp.StatusCode < http.StatusBadRequest {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusServiceUnavailable {
		c.moveFrom(at)
	}
	err = problem(resp)
	if t, ok := errors.AsType[*tried](err); ok && resp.StatusCode == http.StatusMisdirectedRequest {
		c.moveFrom(at)
		t.again, t.sent = len(c.bases) > 1, false
	}
	return nil, err
}

func (c *Client) newRequest(ctx context.Context, base string, r request) (*http.Request, error) {
	var body io.Reader
	switch {
	case r.raw != nil:
		body = r.raw()
	case r.body != nil:
		body = bytes.NewReader(r.body)
	}
	target := base + prefix + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, fail(CodeInvalidConfig, "the request cannot be made", err)
	}
	c.head(req.Header)
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(req.Header, r.header)
	if r.raw != nil {
		req.ContentLength = r.size
	}
	return req, nil
}

// head sets what every request carries.
func (c *Client) head(h http.Header) {
	h.Set("User-Agent", c.cfg.UserAgent)
	h.Set("Accept", "application/json, application/problem+json")
	if c.cfg.Token != "" {
		h.Set("Authorization", "Bearer "+c.cfg.Token)
	}
}

// moveFrom makes the next address current, unless another call already did.
func (c *Client) moveFrom(at int64) {
	c.current.CompareAndSwap(at, (at+1)%int64(len(c.bases)))
}

// unreachable explains why no answer came.
func (c *Client) unreachable(base string, cause error, sent bool) error {
	where := strings.TrimPrefix(base, "https://")
	if c.cfg.Socket != "" {
		where = c.cfg.Socket
	}
	if asURL, ok := errors.AsType[*url.Error](cause); ok {
		cause = asURL.Err // the URL is said already
	}
	_, unknown := errors.AsType[*tls.CertificateVerificationError](cause)
	if unknown || errors.Is(cause, errUntrusted) {
		return &tried{again: len(c.bases) > 1, err: fail(CodeUntrusted, "the server at "+where+" is not trusted", cause)}
	}
	detail := "the server at " + where + " cannot be reached"
	if sent {
		detail = "the connection to the server at " + where + " broke off"
	}
	err := fail(CodeUnreachable, detail, cause)
	return &tried{again: true, sent: sent, err: err}
}

// problem reads the error a server answered with.
func problem(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	t := &tried{sent: true, err: problemOf(resp.StatusCode, resp.Header.Get("Content-Type"), body)}
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		t.again, t.sent = true, false // it was turned away at the door
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		t.again = true
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s >= 0 {
		t.wait = time.Duration(s) * time.Second
	}
	return t
}

func problemOf(status int, contentType string, body []byte) error {
	var e api.Error
	if strings.HasPrefix(contentType, "application/") && json.Unmarshal(body, &e) == nil && e.Code != "" {
		if e.Detail == "" {
			e.Detail = e.Title
		}
		return &e
	}
	text := http.StatusText(status)
	return &api.Error{
		Title: text, Status: status, Code: CodeBadAnswer,
		Detail:    fmt.Sprintf("the server answered %d %s without saying why; is this a NovaCron server?", status, text),
		Retryable: status >= http.StatusInternalServerError,
	}
}

// decode reads a JSON answer. An empty one leaves out as it is.
func decode(resp *http.Response, out any) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return &tried{again: true, sent: true, err: fail(CodeUnreachable, "the server's answer broke off", err)}
	}
	if out == nil || len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fail(CodeBadAnswer, "the server's answer cannot be read; is this a NovaCron server of this version?", err)
	}
	return nil
}
