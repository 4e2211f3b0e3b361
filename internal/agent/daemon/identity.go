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

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/nodelink"
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
	cert  tls.Certificate
}

const (
	stateFile = "node.json"
	keyFile   = "key.pem"
	certFile  = "cert.pem"
	caFile    = "ca.pem"
)

// lockDir keeps a second process off the node's folder.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // guests' own users go through it to their disks
		return nil, errs.New(errs.HostFailure, "the node's folder cannot be made").Because(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the node's folder cannot be locked").Because(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, errs.New(errs.Conflict, "another agent runs on this node's folder").Because(err)
	}
	return f, nil
}

// joined tells whether the folder holds an identity.
func joined(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, stateFile))
	return err == nil
}

// loadIdentity reads the folder and raises the incarnation, durably.
func loadIdentity(dir string) (*identity, error) {
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "this node has not joined a cluster: run it once with --join TOKEN, made by 'novacron node token'")
	}
	n := &identity{dir: dir}
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
	n.root = root
	n.cert = tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
	return nil
}

func (n *identity) save() error {
	b, err := json.Marshal(n.state)
	if err == nil {
		err = writeDurably(filepath.Join(n.dir, stateFile), b)
	}
	if err != nil {
		return errs.New(errs.HostFailure, "the node's identity cannot be written; is its disk full?").Because(err)
	}
	return nil
}

// remember keeps the list of servers for the next start.
func (n *identity) remember(servers []string) error {
	if slices.Equal(servers, n.state.Servers) {
		return nil
	}
	n.state.Servers = slices.Clone(servers)
	return n.save()
}

// store writes a fresh identity; node.json comes last and makes it count.
func store(dir string, r nodelink.JoinReply, name string, simulated bool, key *ecdsa.PrivateKey) error {
	keyPEM, err := pki.KeyPEM(key)
	if err != nil {
		return err
	}
	for file, b := range map[string][]byte{keyFile: keyPEM, certFile: []byte(r.CertPEM), caFile: []byte(r.CAPEM)} {
		if err := writeDurably(filepath.Join(dir, file), b); err != nil {
			return errs.New(errs.HostFailure, "the node's identity cannot be written").Because(err)
		}
	}
	n := &identity{dir: dir, state: state{Node: r.Node, Cluster: r.Cluster, Name: name, Servers: r.Servers, Simulated: simulated}}
	return n.save()
}

// tls makes the client's side of a session under an ALPN protocol.
func (n *identity) tls(alpn string) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		RootCAs:      pki.PoolOf(n.root),
		ServerName:   pki.ServerName,
		Certificates: []tls.Certificate{n.cert},
		NextProtos:   []string{alpn},
	}
}

func writeDurably(path string, b []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
