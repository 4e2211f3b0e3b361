package pki

import (
	"crypto/x509"
	"path/filepath"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func authority(t *testing.T) *Authority {
	t.Helper()
	a, err := NewAuthority(id.New(), now)
	if err != nil {
		t.Fatal(err)
	}
	key, err := a.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Load(a.CertPEM(), key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNodeCertificate(t *testing.T) {
	a, node := authority(t), id.New()
	key, _ := NewKey()
	csr, err := Request(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, hash, err := a.Node(node, csr, now)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseCert(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	opts := x509.VerifyOptions{Roots: a.Pool(), CurrentTime: now.Add(NodeLife - time.Minute), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := c.Verify(opts); err != nil {
		t.Error(err)
	}
	opts.CurrentTime = now.Add(NodeLife + time.Minute)
	if _, err := c.Verify(opts); err == nil {
		t.Error("a node's certificate outlives 7 days")
	}
	got, gotHash, err := NodeOf(c)
	if err != nil || got != node || string(gotHash) != string(hash) {
		t.Errorf("%v %x %v", got, gotHash, err)
	}
	if _, _, err := NodeOf(a.Cert); !errs.Is(err, errs.Unauthenticated) {
		t.Errorf("the root passes for a node: %v", err)
	}
}

func TestPinnedRoot(t *testing.T) {
	a, other := authority(t), authority(t)
	srv, err := a.Server([]string{"127.0.0.1", "localhost"}, now)
	if err != nil {
		t.Fatal(err)
	}
	presented := func(ders ...[]byte) (cs []*x509.Certificate) {
		for _, d := range ders {
			c, err := x509.ParseCertificate(d)
			if err != nil {
				t.Fatal(err)
			}
			cs = append(cs, c)
		}
		return cs
	}
	if _, err := PinnedRoot(presented(srv.Certificate...), a.Pin(), now); err != nil {
		t.Error(err)
	}
	if _, err := PinnedRoot(presented(srv.Certificate...), other.Pin(), now); !errs.Is(err, errs.Unauthenticated) {
		t.Errorf("another cluster's pin: %v", err)
	}
	// an impostor replays our root beside a leaf of its own
	fake, _ := other.Server(nil, now)
	if _, err := PinnedRoot(presented(fake.Certificate[0], a.Cert.Raw), a.Pin(), now); !errs.Is(err, errs.Unauthenticated) {
		t.Errorf("an impostor: %v", err)
	}
}

func TestSeal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	if _, err := SealerFromFile(path, false); err == nil {
		t.Error("a key came from nowhere")
	}
	s, err := SealerFromFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	again, err := SealerFromFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	sealed := s.Seal("ca", []byte("secret"))
	if out, err := again.Open("ca", sealed); err != nil || string(out) != "secret" {
		t.Errorf("%q %v", out, err)
	}
	if _, err := again.Open("cursor", sealed); err == nil {
		t.Error("a secret opens for another purpose")
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := again.Open("ca", sealed); err == nil {
		t.Error("a damaged secret opens")
	}
}

func TestJoinToken(t *testing.T) {
	want := JoinToken{Secret: "x", Pin: make([]byte, 32), Servers: []string{"127.0.0.1:8443"}}
	got, err := ParseJoinToken(" " + want.String() + "\n")
	if err != nil || got.Secret != want.Secret || got.Servers[0] != want.Servers[0] {
		t.Errorf("%+v %v", got, err)
	}
	for _, bad := range []string{"", "nvj_", "nvj_e30", want.String()[4:], want.String()[:20]} {
		if _, err := ParseJoinToken(bad); !errs.Is(err, errs.InvalidField) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What is taken as a join token says whom to trust and where to go, and is written
// again as the same token.
func FuzzParseJoinToken(f *testing.F) {
	f.Add(JoinToken{Secret: "x", Pin: make([]byte, 32), Servers: []string{"127.0.0.1:8443"}}.String())
	f.Add("nvj_e30")
	f.Fuzz(func(t *testing.T, s string) {
		j, err := ParseJoinToken(s)
		if err != nil {
			if !errs.Is(err, errs.InvalidField) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		again, err := ParseJoinToken(j.String())
		if err != nil || again.String() != j.String() || again.Secret == "" || len(again.Servers) == 0 {
			t.Errorf("%q is read as %+v, and that as %+v, %v", s, j, again, err)
		}
	})
}
