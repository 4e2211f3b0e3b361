package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

const (
	rootLife = 10 * 365 * 24 * time.Hour
	// ServerLife is how long a server's certificate lasts; servers make a new one
	// at each start and at half of it.
	ServerLife = 90 * 24 * time.Hour
	// NodeLife is how long a node's certificate lasts.
	NodeLife = 7 * 24 * time.Hour
	// NodeLate is what is left of a node's certificate when its renewal, at two thirds
	// of its life, has been failing for almost a day.
	NodeLate = 36 * time.Hour
	// ahead is how far a clock that signs may be ahead of one that verifies: the
	// cluster's root is older than whatever it signs, so an early beginning gives
	// nothing away. With ServerLife it stays below the 825 days that some systems take.
	ahead = 365 * 24 * time.Hour
	skew  = time.Hour

	// ServerName is the name every server's certificate carries for agents.
	ServerName = "server.novacron.internal"
	nodeScheme = "novacron-node"
)

// Authority signs for one cluster.
type Authority struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes the root of a new cluster.
func NewAuthority(cluster id.ID, now time.Time) (*Authority, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "NovaCron cluster " + id.Short(cluster), Organization: []string{"NovaCron"}},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(rootLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, errs.New(errs.Internal, "the cluster's certificate cannot be made").Because(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errs.New(errs.Internal, "the cluster's certificate cannot be read back").Because(err)
	}
	return &Authority{Cert: cert, key: key}, nil
}

// Load reads an authority from its certificate and key, both PEM.
func Load(certPEM, keyPEM []byte) (*Authority, error) {
	cert, err := ParseCert(certPEM)
	if err != nil {
		return nil, err
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	return &Authority{Cert: cert, key: key}, nil
}

// CertPEM is the root certificate.
func (a *Authority) CertPEM() []byte { return certPEM(a.Cert.Raw) }

// KeyPEM is the root's private key: a secret, to be sealed at once.
func (a *Authority) KeyPEM() ([]byte, error) { return KeyPEM(a.key) }

// Server makes a certificate for a server that people reach at hosts.
func (a *Authority) Server(hosts []string, now time.Time) (tls.Certificate, error) {
	key, err := NewKey()
	if err != nil {
		return tls.Certificate{}, err
	}
	tmpl := a.leaf("NovaCron server", now, ServerLife, x509.ExtKeyUsageServerAuth)
	tmpl.DNSNames = []string{ServerName}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else if h != "" {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.Cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, errs.New(errs.Internal, "the server's certificate cannot be made").Because(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, a.Cert.Raw}, PrivateKey: key}, nil
}

// Node signs a node's certificate request. Only the request's key is taken;
// what it says of names is ignored.
func (a *Authority) Node(node id.ID, csrPEM []byte, now time.Time) (certOut []byte, keyHash []byte, err error) {
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, nil, errs.New(errs.InvalidField, "the certificate request is not PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, nil, errs.New(errs.InvalidField, "the certificate request is not valid").Because(err)
	}
	certOut, err = a.signNode(node, csr.PublicKey, now)
	sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	return certOut, sum[:], err
}

func (a *Authority) signNode(node id.ID, key crypto.PublicKey, now time.Time) ([]byte, error) {
	tmpl := a.leaf("NovaCron node", now, NodeLife, x509.ExtKeyUsageClientAuth)
	tmpl.URIs = []*url.URL{{Scheme: nodeScheme, Opaque: node.String()}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.Cert, key, a.key)
	if err != nil {
		return nil, errs.New(errs.Internal, "the node's certificate cannot be made").Because(err)
	}
	return certPEM(der), nil
}

// RenewNode makes a new certificate for the node and the key of one that this
// authority made, expired or not. It fails with Unauthenticated for any other.
// That the peer holds the key, and that the node may have another certificate,
// is for the caller to check.
func (a *Authority) RenewNode(old *x509.Certificate, now time.Time) (node id.ID, keyHash, certOut []byte, err error) {
	at := now
	if last := old.NotAfter.Add(-time.Second); at.After(last) {
		at = last
	}
	_, err = old.Verify(x509.VerifyOptions{Roots: a.Pool(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return id.Nil, nil, nil, errs.New(errs.Unauthenticated, "the certificate was not made by this cluster").Because(err)
	}
	if node, keyHash, err = NodeOf(old); err != nil {
		return id.Nil, nil, nil, err
	}
	certOut, err = a.signNode(node, old.PublicKey, now)
	return node, keyHash, certOut, err
}

// RenewAt is when a node's certificate has lived two thirds of its life. What it
// says of its beginning is earlier than it was made.
func RenewAt(c *x509.Certificate) time.Time { return c.NotAfter.Add(-NodeLife / 3) }

// Pool is the set of roots that holds only this authority.
func (a *Authority) Pool() *x509.CertPool { return PoolOf(a.Cert) }

// Pin identifies the authority: SHA-256 of its public key.
func (a *Authority) Pin() [32]byte { return sha256.Sum256(a.Cert.RawSubjectPublicKeyInfo) }

// PoolOf is a set of one root.
func PoolOf(c *x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c)
	return p
}

// NodeOf reads the node's id from its certificate, and the hash of its key.
func NodeOf(c *x509.Certificate) (node id.ID, keyHash []byte, err error) {
	for _, u := range c.URIs {
		if u.Scheme != nodeScheme {
			continue
		}
		n, err := id.Parse(u.Opaque)
		if err != nil {
			return id.Nil, nil, err
		}
		sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
		return n, sum[:], nil
	}
	return id.Nil, nil, errs.New(errs.Unauthenticated, "the certificate is not a node's")
}

// PinnedRoot finds the root with the pin in what a server presented and checks
// that the server's certificate is signed by it: how a joining agent, which
// knows nothing else, proves the server.
func PinnedRoot(presented []*x509.Certificate, pin [32]byte, now time.Time) (*x509.Certificate, error) {
	for _, c := range presented {
		if sha256.Sum256(c.RawSubjectPublicKeyInfo) != pin {
			continue
		}
		_, err := presented[0].Verify(x509.VerifyOptions{
			Roots: PoolOf(c), DNSName: ServerName, CurrentTime: now,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		if err != nil {
			return nil, errs.New(errs.Unauthenticated, "the server's certificate is not signed by its cluster").Because(err)
		}
		return c, nil
	}
	return nil, errs.New(errs.Unauthenticated, "this server does not belong to the cluster that issued the token")
}

// NewKey makes a private key.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, errs.New(errs.Internal, "a key cannot be made").Because(err)
	}
	return key, nil
}

// KeyPEM writes a private key as PKCS #8.
func KeyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, errs.New(errs.Internal, "the key cannot be written").Because(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads a private key from PKCS #8 PEM.
func ParseKey(b []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errs.New(errs.Internal, "the key is not PEM")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errs.New(errs.Internal, "the key is damaged").Because(err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errs.New(errs.Internal, "the key is not an ECDSA key")
	}
	return key, nil
}

// ParseCert reads one certificate from PEM.
func ParseCert(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errs.New(errs.Internal, "the certificate is not PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, errs.New(errs.Internal, "the certificate is damaged").Because(err)
	}
	return c, nil
}

// Request makes a certificate request for a key.
func Request(key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, errs.New(errs.Internal, "the certificate request cannot be made").Because(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// Fingerprint is how people compare a certificate: SHA-256 in pairs of
// hexadecimal digits.
func Fingerprint(c *x509.Certificate) string { return FormatFingerprint(sha256.Sum256(c.Raw)) }

// FormatFingerprint writes a fingerprint for people.
func FormatFingerprint(sum [sha256.Size]byte) string {
	pairs := make([]string, len(sum))
	for i, b := range sum {
		pairs[i] = strings.ToUpper(string("0123456789abcdef"[b>>4]) + string("0123456789abcdef"[b&15]))
	}
	return strings.Join(pairs, ":")
}

func (a *Authority) leaf(name string, now time.Time, life time.Duration, use x509.ExtKeyUsage) *x509.Certificate {
	begin := now.Add(-ahead)
	if a.Cert.NotBefore.After(begin) {
		begin = a.Cert.NotBefore
	}
	return &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    begin,
		NotAfter:     now.Add(life),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{use},
	}
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// serial is 127 random bits, so never negative and never repeated (RFC 5280
// asks for at most 20 octets).
func serial() *big.Int {
	u := id.New()
	n := new(big.Int).SetBytes(u[:])
	return n.Rsh(n, 1)
}
