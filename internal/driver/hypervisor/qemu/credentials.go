package qemu

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// What the two ends of a move know each other by: an authority that is made for it at
// the target, signs twice, and is forgotten. So there are two certificates that it
// vouches for, and a third cannot come to be. Neither end's key leaves its host.

// moveName is the name in both certificates: that of the move.
func moveName(migration id.ID) string { return migration.String() + ".move.novacron.internal" }

// The certificates hold whatever a host's clock says: what they are for ends with the
// keys.
var (
	validFrom  = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	validUntil = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// newRequest makes a source's key, and the request that it is signed by.
func newRequest(migration id.ID) (key *ecdsa.PrivateKey, request []byte, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	request, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: moveName(migration)},
	}, key)
	return key, request, err
}

// landingRecord is landing.json: by what a target is known, and knows its source. It is
// there until the machine has arrived.
type landingRecord struct {
	Key         []byte `json:"key"` // PKCS #8
	Certificate []byte `json:"certificate"`
	Authority   []byte `json:"authority"`
}

// newAuthority signs a source's request, and a certificate for the target.
func newAuthority(migration id.ID, request []byte) (target landingRecord, source []byte, err error) {
	csr, err := x509.ParseCertificateRequest(request)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return target, nil, errs.New(errs.InvalidField, "the request of the departure is none").Because(err)
	}
	sign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return target, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err == nil {
		target.Key, err = x509.MarshalPKCS8PrivateKey(key)
	}
	if err != nil {
		return target, nil, err
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of " + migration.String()},
		NotBefore: validFrom, NotAfter: validUntil,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if target.Authority, err = x509.CreateCertificate(rand.Reader, root, root, sign.Public(), sign); err != nil {
		return target, nil, err
	}
	leaf := func(n int64, public any, use x509.ExtKeyUsage) ([]byte, error) {
		return x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: moveName(migration)}, DNSNames: []string{moveName(migration)},
			NotBefore: validFrom, NotAfter: validUntil, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use},
		}, root, public, sign)
	}
	if target.Certificate, err = leaf(2, key.Public(), x509.ExtKeyUsageServerAuth); err == nil {
		source, err = leaf(3, csr.PublicKey, x509.ExtKeyUsageClientAuth)
	}
	return target, source, err
}

// pool is one authority.
func pool(der []byte) (*x509.CertPool, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errs.New(errs.InvalidField, "the authority of a landing is none").Because(err)
	}
	p := x509.NewCertPool()
	p.AddCert(c)
	return p, nil
}

// server is how a target lets its source in, and nobody else.
func (r landingRecord) server() (*tls.Config, error) {
	key, err := x509.ParsePKCS8PrivateKey(r.Key)
	if err != nil {
		return nil, err
	}
	p, err := pool(r.Authority)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
		Certificates: []tls.Certificate{{Certificate: [][]byte{r.Certificate}, PrivateKey: key}},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: p,
	}, err
}

// client is how a source knows its target, and shows who it is.
func (d *departed) client(to contract.Landing) (*tls.Config, error) {
	p, err := pool(to.Authority)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true, ServerName: moveName(to.Migration), RootCAs: p,
		Certificates: []tls.Certificate{{Certificate: [][]byte{to.Pass}, PrivateKey: d.key}},
	}, err
}
