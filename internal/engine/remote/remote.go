package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// How long the other side may take.
const (
	dialTimeout   = 10 * time.Second
	headerTimeout = 30 * time.Second
	// stall is how long it may send nothing.
	stall        = 60 * time.Second
	maxRedirects = 5
)

// Client reads files. It is safe for concurrent use.
type Client struct {
	guard Guard
	http  *http.Client
	look  func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// New makes a client that may go to the internet and to some networks besides.
func New(networks []netip.Prefix) *Client {
	c := &Client{guard: Guard{networks}, look: net.DefaultResolver.LookupNetIP}
	dialer := &net.Dialer{Timeout: dialTimeout, Control: func(_, address string, _ syscall.RawConn) error { return c.dials(address) }}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dialer.DialContext(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return patient{conn}, nil
			},
			TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: headerTimeout,
			DisableCompression: true, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: c.redirected,
	}
	return c
}

// dials decides about host:port, where host is an address by now.
func (c *Client) dials(address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return forbid("%s is no address", errs.Clip(address))
	}
	return c.guard.Address(at.Addr())
}

func (c *Client) redirected(r *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return forbid("the URL is redirected more than %d times", maxRedirects)
	}
	if via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
		return forbid("the URL is redirected from https to %s", errs.Clip(r.URL.Scheme))
	}
	_, err := c.guard.URL(r.URL.String())
	return err
}

// Check refuses at once what would be refused later: a URL that is none, and a host
// all of whose addresses are forbidden. That a name is not known now is no refusal.
func (c *Client) Check(ctx context.Context, raw string) error {
	u, err := c.guard.URL(raw)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout/2)
	defer cancel()
	all, err := c.look(ctx, "ip", u.Hostname())
	if err != nil {
		return nil
	}
	for _, a := range all {
		if err = c.guard.Address(a); err == nil {
			return nil
		}
	}
	return err
}

// Body is a file on its way.
type Body struct {
	io.ReadCloser
	// From is the byte it begins at, and Size the whole file's length.
	From, Size int64
	// Validator names this very content, for going on with it; empty when the other
	// side gives none that can be relied on.
	Validator string
}

// Get begins to read a file, at a byte if it is still what validator names, and at 0
// otherwise. errs.URLForbidden and errs.InvalidField are for good, errs.Timeout may
// pass. limit bounds the file's length.
func (c *Client) Get(ctx context.Context, raw string, from int64, validator string, limit int64) (*Body, error) {
	u, err := c.guard.URL(raw)
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(ctx)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		end()
		return nil, forbid("this is no URL")
	}
	r.Header.Set("User-Agent", "novacron")
	r.Header.Set("Accept", "*/*")
	if from > 0 && validator != "" {
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
		r.Header.Set("If-Range", validator)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		end()
		return nil, failure(u, err)
	}
	b, err := body(answer, u, limit)
	if err != nil {
		end()
		_ = answer.Body.Close()
		return nil, err
	}
	b.ReadCloser = &ending{answer.Body, end}
	return b, nil
}

// failure tells a refusal of ours from one of the network's.
func failure(u *url.URL, err error) error {
	if e, ok := errors.AsType[*errs.Error](err); ok {
		return e
	}
	// the cause has the URL, which may have a secret in its query
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return errs.New(errs.Timeout, "nothing came from %s: %s", errs.Clip(u.Host), errs.Clip(err.Error())).Because(err)
}

func body(a *http.Response, u *url.URL, limit int64) (*Body, error) {
	b := &Body{Size: a.ContentLength}
	switch {
	case a.StatusCode == http.StatusPartialContent:
		if err := b.part(a.Header.Get("Content-Range"), a.ContentLength); err != nil {
			return nil, err
		}
	case a.StatusCode >= 500 || a.StatusCode == http.StatusTooManyRequests:
		return nil, errs.New(errs.Timeout, "%s answered '%s'", errs.Clip(u.Host), errs.Clip(a.Status))
	case a.StatusCode != http.StatusOK:
		return nil, errs.New(errs.InvalidField, "%s answered '%s'", errs.Clip(u.Host), errs.Clip(a.Status))
	}
	if tag := a.Header.Get("ETag"); strings.HasPrefix(tag, `"`) && len(tag) <= 256 {
		b.Validator = tag
	}
	return b, b.bounded(u, limit)
}

// bounded refuses a file without an end, or whose end is too far.
func (b *Body) bounded(u *url.URL, limit int64) error {
	switch {
	case b.Size < 0:
		return errs.New(errs.LengthMismatch, "%s does not say how long the file is: nothing is read without an end", errs.Clip(u.Host))
	case b.Size == 0:
		return errs.New(errs.InvalidImage, "the file at %s is empty", errs.Clip(u.Host))
	case b.Size > limit:
		return errs.New(errs.TooLarge, "the file at %s has %d bytes: up to %d are taken", errs.Clip(u.Host), b.Size, limit)
	default:
		return nil
	}
}

// part reads "bytes 100-199/200".
func (b *Body) part(header string, length int64) error {
	var first, last int64
	spec, size, ok := strings.Cut(strings.TrimPrefix(header, "bytes "), "/")
	n, err := fmt.Sscanf(spec, "%d-%d", &first, &last)
	whole, bad := strconv.ParseInt(size, 10, 64)
	if !ok || n != 2 || errors.Join(err, bad) != nil || first < 0 || last != whole-1 || length != whole-first {
		return errs.New(errs.Timeout, "the part of the file that came is none: '%s'", errs.Clip(header))
	}
	b.From, b.Size = first, whole
	return nil
}

// ending is a body with which its request ends.
type ending struct {
	io.ReadCloser
	end context.CancelFunc
}

// Close implements io.Closer.
func (e *ending) Close() error {
	e.end()
	return e.ReadCloser.Close()
}

// patient is a connection that fails when nothing comes for long.
type patient struct{ net.Conn }

// Read implements net.Conn.
func (p patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(clock.Deadline(stall)); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}
