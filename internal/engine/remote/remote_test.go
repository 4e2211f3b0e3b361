package remote

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Addresses that are somebody's own are refused in every form, unless their network
// is named; those of the internet are not.
func TestAddresses(t *testing.T) {
	var g Guard
	for _, a := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.1", "169.254.169.254",
		"172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1",
		"224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe",
		"64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "2002:a00:1::1", "3fff::1", "5f00::1", "fc00::1", "fd12:3456::1", "fe80::1",
		"fe80::1%eth0", "2606:4700::1%eth0", "fec0::1", "ff02::1",
	} {
		if err := g.Address(netip.MustParseAddr(a)); !errs.Is(err, errs.URLForbidden) {
			t.Errorf("%s: %v", a, err)
		}
	}
	for _, a := range []string{"1.1.1.1", "9.255.255.255", "11.0.0.0", "100.128.0.1", "172.32.0.1", "223.255.255.255", "::ffff:1.1.1.1", "64:ff9b::101:101", "2606:4700:4700::1111", "2a00::1"} {
		if err := g.Address(netip.MustParseAddr(a)); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	g.Networks = prefixes("10.1.0.0/16", "fd00:1::/32")
	for a, ok := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "64:ff9b::a01:203": true, "fd00:1::5": true, "10.2.0.1": false, "fd00:2::1": false, "127.0.0.1": false} {
		if err := g.Address(netip.MustParseAddr(a)); (err == nil) != ok {
			t.Errorf("%s with networks: %v", a, err)
		}
	}
}

func TestURLs(t *testing.T) {
	c := New(nil)
	c.look = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		all := map[string][]netip.Addr{
			"in.test": {netip.MustParseAddr("10.0.0.1")}, "out.test": {netip.MustParseAddr("1.1.1.1")},
			"both.test": {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("1.1.1.1")},
		}[host]
		if all == nil {
			return nil, errors.New("no such host")
		}
		return all, nil
	}
	for _, u := range []string{
		"", "/etc/passwd", "file:///etc/passwd", "ftp://out.test/a", "gopher://out.test", "data:text/plain,a", "javascript:0", "unix:///run/a.sock",
		"http://", "http:///a", "https://user:secret@out.test/a", "https://user@out.test/a", "http://out.test/a b", "http://out.test/\x00", "http://out.test/a\r\nHost: b",
		"http://127.0.0.1/", "http://127.0.0.1:8443/", "https://[::1]/", "http://[::ffff:10.0.0.1]/", "http://169.254.169.254/latest/meta-data", "http://[fe80::1%25eth0]/",
		"http://0.0.0.0/", "http://in.test/", "http://out.test/" + strings.Repeat("a", maxURL), "http://[::1", "://", "http://%zz/",
	} {
		if err := c.Check(t.Context(), u); !errs.Is(err, errs.URLForbidden) {
			t.Errorf("%q: %v", u, err)
		}
	}
	for _, u := range []string{"http://out.test/a?b=c#d", "HTTPS://out.test:8443/", "http://1.1.1.1/", "http://both.test/", "http://unknown.test/"} {
		if err := c.Check(t.Context(), u); err != nil {
			t.Errorf("%q: %v", u, err)
		}
	}
}

// local is a server, and a client that may go to it.
func local(t *testing.T, h http.HandlerFunc) (*Client, string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return New(prefixes("127.0.0.0/8")), s.URL
}

func get(t *testing.T, c *Client, u string, from int64, validator string) (string, *Body, error) {
	t.Helper()
	b, err := c.Get(t.Context(), u, from, validator, 1000)
	if err != nil {
		return "", nil, err
	}
	defer b.Close()
	text, err := io.ReadAll(b)
	return string(text), b, err
}

// What is dialled decides, whatever the name said before, and on each redirect.
func TestDialsAreGuarded(t *testing.T) {
	reached := 0
	_, there := local(t, func(http.ResponseWriter, *http.Request) { reached++ })
	if _, _, err := get(t, New(nil), strings.Replace(there, "127.0.0.1", "localhost", 1), 0, ""); !errs.Is(err, errs.URLForbidden) || reached > 0 {
		t.Errorf("a name of this machine: %v", err)
	}
	var to string
	c, here := local(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) })
	c.guard.Networks = nil
	at, err := url.Parse(here)
	if err != nil {
		t.Fatal(err)
	}
	// only the first server may be reached
	c.guard.Networks = prefixes("127.0.0.1/32")
	for _, to = range []string{"http://127.0.0.2:" + at.Port(), "http://10.0.0.1/", "file:///etc/passwd", "http://user:pw@127.0.0.1/", "gopher://127.0.0.1/", "http://[::1]:" + at.Port(), here} {
		if _, _, err := get(t, c, here, 0, ""); !errs.Is(err, errs.URLForbidden) {
			t.Errorf("to %s: %v", to, err)
		}
	}
	secure := httptest.NewTLSServer(http.RedirectHandler(here, http.StatusFound))
	t.Cleanup(secure.Close)
	c.http.Transport.(*http.Transport).TLSClientConfig = secure.Client().Transport.(*http.Transport).TLSClientConfig
	if _, _, err := get(t, c, secure.URL, 0, ""); !errs.Is(err, errs.URLForbidden) {
		t.Errorf("from https to http: %v", err)
	}
}

// A proxy of the environment would dial instead of us.
func TestNoProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	c, u := local(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("content")) })
	if got, _, err := get(t, c, u, 0, ""); err != nil || got != "content" {
		t.Errorf("%q %v", got, err)
	}
}

// A reading goes on where it broke off while it is the same file.
func TestGoesOn(t *testing.T) {
	tag := `"one"`
	c, u := local(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("content"))
	})
	_, b, err := get(t, c, u, 0, "")
	if err != nil || b.Validator != tag || b.Size != 7 || b.From != 0 {
		t.Fatalf("%+v %v", b, err)
	}
	if got, b, err := get(t, c, u, 3, tag); err != nil || got != "tent" || b.From != 3 || b.Size != 7 || b.Validator != tag {
		t.Errorf("%q %+v %v", got, b, err)
	}
	for _, old := range []string{"", `"other"`} {
		if got, b, err := get(t, c, u, 3, old); err != nil || got != "content" || b.From != 0 {
			t.Errorf("with %q: %q %+v %v", old, got, b, err)
		}
	}
	tag = `W/"weak"`
	if _, b, err := get(t, c, u, 0, ""); err != nil || b.Validator != "" {
		t.Errorf("weak: %+v %v", b, err)
	}
}

// Answers that are none, and files without an end, are refused with their reason.
func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		code   errs.Code
	}{
		"not there": {http.NotFound, errs.InvalidField},
		"forbidden": {status(403), errs.InvalidField},
		"not now":   {status(503), errs.Timeout},
		"too often": {status(429), errs.Timeout},
		"empty":     {func(http.ResponseWriter, *http.Request) {}, errs.InvalidImage},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				_, _ = w.Write(make([]byte, 1000))
			}
		}, errs.LengthMismatch},
		"too large":      {length("1001"), errs.TooLarge},
		"much too large": {length("9223372036854775807"), errs.TooLarge},
		"a wrong part": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 3-5/7")
			w.Header().Set("Content-Length", "3")
			w.WriteHeader(http.StatusPartialContent)
		}, errs.Timeout},
		"a part of nothing": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusPartialContent) }, errs.Timeout},
		"hung up": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		}, errs.Timeout},
	} {
		cl, u := local(t, c.answer)
		_, _, err := get(t, cl, u+"?token=secret", 3, `"tag"`)
		if !errs.Is(err, c.code) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func status(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(n) }
}

func length(n string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", n) }
}

// FuzzURL: whatever is taken is http or https, with a host and without credentials.
func FuzzURL(f *testing.F) {
	for _, u := range []string{"http://a/b", "https://a:1/?b#c", "http://[::1]/", "http://user@a/", "file:///", "http://127.1/"} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := Guard{}.URL(raw)
		switch {
		case err != nil && !errs.Is(err, errs.URLForbidden):
			t.Error(err)
		case err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil):
			t.Errorf("%q is taken as %v", raw, u)
		}
	})
}
