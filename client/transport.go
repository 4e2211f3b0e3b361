package client

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// serverName is a name every certificate of a cluster's server carries; the
// address it is reached at may be missing there.
const serverName = "server.novacron.internal"

const (
	dialTimeout      = 5 * time.Second
	handshakeTimeout = 10 * time.Second
)

// errUntrusted marks a certificate that the configuration does not trust.
var errUntrusted = errors.New("the certificate is not trusted")

func newTransport(cfg Config) (http.RoundTripper, []string, error) {
	t := &http.Transport{
		TLSHandshakeTimeout:   handshakeTimeout,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       time.Minute,
		MaxIdleConnsPerHost:   4,
	}
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	if cfg.Socket != "" {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", cfg.Socket)
		}
		return t, []string{"http://novacron"}, nil
	}
	if len(cfg.Addresses) == 0 {
		return nil, nil, fail(CodeInvalidConfig, "no address of a server is configured", nil)
	}
	t.DialContext = dialer.DialContext
	t.Proxy = http.ProxyFromEnvironment
	verify, err := trust(cfg)
	if err != nil {
		return nil, nil, err
	}
	// HTTP/1.1 alone: a WebSocket needs it, and a connection more is cheap.
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if verify != nil {
		// The usual verification knows neither the cluster's root nor its names;
		// VerifyConnection takes its place and runs on resumed sessions too.
		t.TLSClientConfig.InsecureSkipVerify = true
		t.TLSClientConfig.VerifyConnection = verify
	}
	bases := make([]string, 0, len(cfg.Addresses))
	for _, a := range cfg.Addresses {
		base, err := baseURL(a)
		if err != nil {
			return nil, nil, err
		}
		bases = append(bases, base)
	}
	return t, bases, nil
}

// baseURL makes "https://host:port" of an address with or without scheme.
func baseURL(addr string) (string, error) {
	addr = strings.TrimSuffix(strings.TrimPrefix(addr, "https://"), "/")
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" || port == "" {
		return "", fail(CodeInvalidConfig, fmt.Sprintf("%q is not an address: write host:port, as in cloud.example:8443", addr), nil)
	}
	return "https://" + addr, nil
}

// trust gives the verification that Config asks for; nil for the machine's.
func trust(cfg Config) (func(tls.ConnectionState) error, error) {
	switch {
	case cfg.Fingerprint != "":
		want, err := parseFingerprint(cfg.Fingerprint)
		if err != nil {
			return nil, err
		}
		return func(cs tls.ConnectionState) error { return checkPin(cs.PeerCertificates, want) }, nil
	case len(cfg.CA) > 0:
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(cfg.CA) {
			return nil, fail(CodeInvalidConfig, "the cluster's certificate is not PEM", nil)
		}
		return func(cs tls.ConnectionState) error { return checkChain(cs.PeerCertificates, roots) }, nil
	default:
		return nil, nil
	}
}

func parseFingerprint(s string) ([]byte, error) {
	clean := strings.NewReplacer(":", "", " ", "").Replace(strings.TrimPrefix(strings.ToLower(s), "sha256:"))
	b, err := hex.DecodeString(clean)
	if err != nil || len(b) != sha256.Size {
		return nil, fail(CodeInvalidConfig, "a certificate's fingerprint is 64 hexadecimal digits (SHA-256)", nil)
	}
	return b, nil
}

// checkPin finds the pinned certificate in what the server shows. The server's
// own certificate is proved by the handshake; any other must have signed it.
func checkPin(shown []*x509.Certificate, want []byte) error {
	for i, c := range shown {
		sum := sha256.Sum256(c.Raw)
		if subtle.ConstantTimeCompare(sum[:], want) != 1 {
			continue
		}
		if i == 0 {
			return nil
		}
		roots := x509.NewCertPool()
		roots.AddCert(c)
		return checkChain(shown, roots)
	}
	return fmt.Errorf("%w: the server shows another fingerprint than the one given", errUntrusted)
}

func checkChain(shown []*x509.Certificate, roots *x509.CertPool) error {
	if len(shown) == 0 {
		return fmt.Errorf("%w: the server shows no certificate", errUntrusted)
	}
	between := x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	_, err := shown[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, DNSName: serverName, CurrentTime: now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errUntrusted, err)
	}
	return nil
}
