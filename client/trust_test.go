package client_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// serve starts a server of a fresh cluster and gives the fingerprint of its root.
func serve(t *testing.T, srv *httptest.Server) string {
	t.Helper()
	root, _, _ := cluster(t, srv)
	return root
}

// cluster gives the fingerprints of root and server, and the root itself.
func cluster(t *testing.T, srv *httptest.Server) (root, leaf string, ca []byte) {
	t.Helper()
	now := clock.System{}.Now()
	authority, err := pki.NewAuthority(id.New(), now)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Server(nil, now)
	if err != nil {
		t.Fatal(err)
	}
	own, err := pki.ParseCert(authority.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return pki.Fingerprint(own), pki.Fingerprint(srv.Certificate()), authority.CertPEM()
}

func TestTrust(t *testing.T) {
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, 200, api.System{Principal: r.Header.Get("Authorization")})
	})
	srv := httptest.NewUnstartedServer(hello)
	root, leaf, ca := cluster(t, srv)
	_, _, otherCA := cluster(t, httptest.NewUnstartedServer(hello))
	other := serve(t, httptest.NewUnstartedServer(hello))
	cases := []struct {
		name string
		cfg  client.Config
		code string
	}{
		{"the cluster's fingerprint", client.Config{Fingerprint: root}, ""},
		{"the server's fingerprint", client.Config{Fingerprint: leaf}, ""},
		{"the cluster's certificate", client.Config{CA: ca}, ""},
		{"another fingerprint", client.Config{Fingerprint: other}, client.CodeUntrusted},
		{"another certificate", client.Config{CA: otherCA}, client.CodeUntrusted},
		{"the machine's roots", client.Config{}, client.CodeUntrusted},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			tc.cfg.Addresses, tc.cfg.Token, tc.cfg.RetryFor = []string{srv.Listener.Addr().String()}, "nvc_secret", -1
			s, err := dial(t, tc.cfg).System(t.Context())
			if client.CodeOf(err) != tc.code {
				t.Fatalf("got %v, want code %q", err, tc.code)
			}
			if err == nil && s.Principal != "Bearer nvc_secret" {
				t.Errorf("the token arrived as %q", s.Principal)
			}
		})
	}
}

func TestBadConfigurations(t *testing.T) {
	for name, cfg := range map[string]client.Config{
		"no server":       {},
		"no port":         {Addresses: []string{"cloud.example"}},
		"bad fingerprint": {Addresses: []string{"h:1"}, Fingerprint: "4F:QQ"},
		"bad certificate": {Addresses: []string{"h:1"}, CA: []byte("x")},
	} {
		if _, err := client.New(cfg); client.CodeOf(err) != client.CodeInvalidConfig {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A redirect would carry the token to wherever it points.
func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer elsewhere.Close()
	c := local(t, http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	if _, err := c.System(t.Context()); err == nil {
		t.Error("a redirect was taken for an answer")
	}
}
