package daemon

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// state is node.json.
type state struct {
	Node      id.ID         `json:"node"`
	Cluster   id.ID         `json:"cluster"`
	Name      string        `json:"name"`
	Epoch     gen.NodeEpoch `json:"node_epoch"`
	Servers   []string      `json:"servers"`
	Simulated bool          `json:"simulated,omitempty"`
}

// identity is who a node is.
type identity struct {
	dir   string
	state state
	root  *x509.Certificate
	key   *ecdsa.PrivateKey
	clock clock.Clock

	// mu guards cert and state, which change while sessions are dialled
	mu   sync.Mutex
	cert *x509.Certificate
}

const (
	stateFile = "node.json"
	keyFile   = "key.pem"
	certFile  = "cert.pem"
	caFile    = "ca.pem"
)

// lockDir keeps a second process off the node's folder.
func lockDir(dir string, clk clock.Clock) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // guests' own users go through it to their disks
		return nil, errs.New(errs.HostFailure, "the node's folder cannot be made").Because(err)
	}
	f, err := durable.Lock(filepath.Join(dir, "lock"), clk)
	switch {
	case errors.Is(err, durable.ErrLocked):
		return nil, errs.New(errs.Conflict, "another agent runs on this node's folder").Because(err)
	case err != nil:
		return nil, errs.New(errs.HostFailure, "the node's folder cannot be locked").Because(err)
	}
	return f, nil
}

// joined tells whether the folder holds an identity.
func joined(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, stateFile))
	return err == nil
}

// loadIdentity reads the folder and raises the incarnation, durably.
func loadIdentity(dir string, clk clock.Clock) (*identity, error) {
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "this node has not joined a cluster: run it once with --join TOKEN, made by 'novacron node token'")
	}
	n := &identity{dir: dir, clock: clk}
	if err == nil {
		err = json.Unmarshal(b, &n.state)
	}
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the node's identity is damaged; join the node anew").Because(err)
	}
	if err := n.loadKeys(); err != nil {
		return nil, err
	}
	n.state.Epoch++
	return n, n.save()
}

func (n *identity) loadKeys() error {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(n.dir, name))
		if err != nil {
			return nil // an empty file is named as damaged below
		}
		return b
	}
	root, err1 := pki.ParseCert(read(caFile))
	cert, err2 := pki.ParseCert(read(certFile))
	key, err3 := pki.ParseKey(read(keyFile))
	if err := errors.Join(err1, err2, err3); err != nil {
		return errs.New(errs.HostFailure, "the node's certificate or key is missing or damaged; join the node anew").Because(err)
	}
	n.root, n.cert, n.key = root, cert, key
	return nil
}

func (n *identity) save() error {
	b, err := json.Marshal(n.state)
	if err == nil {
		err = durable.Replace(filepath.Join(n.dir, stateFile), b, true)
	}
	if err != nil {
		return errs.New(errs.HostFailure, "the node's identity cannot be written; is its disk full?").Because(err)
	}
	return nil
}

// remember keeps the list of servers for the next start.
func (n *identity) remember(servers []string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Equal(servers, n.state.Servers) {
		return nil
	}
	n.state.Servers = slices.Clone(servers)
	return n.save()
}

// follow makes another incarnation of the cluster the node's own.
func (n *identity) follow(cluster id.ID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.state.Cluster
	n.state.Cluster = cluster
	err := n.save()
	if err != nil {
		n.state.Cluster = before
	}
	return err
}

// store writes a fresh identity; node.json comes last and makes it count.
func store(dir string, r nodelink.JoinReply, name string, simulated bool, key *ecdsa.PrivateKey) error {
	keyPEM, err := pki.KeyPEM(key)
	if err != nil {
		return err
	}
	for file, b := range map[string][]byte{keyFile: keyPEM, certFile: []byte(r.CertPEM), caFile: []byte(r.CAPEM)} {
		if err := durable.Replace(filepath.Join(dir, file), b, true); err != nil {
			return errs.New(errs.HostFailure, "the node's identity cannot be written").Because(err)
		}
	}
	n := &identity{dir: dir, state: state{Node: r.Node, Cluster: r.Cluster, Name: name, Servers: r.Servers, Simulated: simulated}}
	return n.save()
}

// tls makes the client's side of a session under an ALPN protocol.
func (n *identity) tls(alpn string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    pki.PoolOf(n.root),
		ServerName: pki.ServerName,
		NextProtos: []string{alpn},
		Time:       n.clock.Now,
		// whatever the server says of what it accepts: there is one
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{n.certificate().Raw}, PrivateKey: n.key}, nil
		},
	}
}

// certificate is the newest the node has.
func (n *identity) certificate() *x509.Certificate {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cert
}

// renewed takes up a new certificate, once it is on disk. One for another key or
// another node is refused: it would lock the node out.
func (n *identity) renewed(certPEM []byte) error {
	cert, err := pki.ParseCert(certPEM)
	if err != nil {
		return err
	}
	node, _, err := pki.NodeOf(cert)
	if err != nil {
		return err
	}
	if node != n.state.Node || !n.key.PublicKey.Equal(cert.PublicKey) {
		return errs.New(errs.Internal, "the server sent a certificate that is not this node's")
	}
	if err := durable.Replace(filepath.Join(n.dir, certFile), certPEM, true); err != nil {
		return errs.New(errs.HostFailure, "the node's new certificate cannot be written; is its disk full?").Because(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cert = cert
	return nil
}
