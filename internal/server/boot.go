package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// secrets are what a server knows that its database does not.
type secrets struct {
	cluster   store.Cluster
	ca        *pki.Authority
	cursorKey []byte
}

// Purposes of sealed secrets.
const (
	sealCA     = "ca-key"
	sealCursor = "cursor-key"
)

// openCluster reads the cluster, making it at the very first start.
func openCluster(ctx context.Context, st *store.Store, dataDir string, clk clock.Clock) (secrets, error) {
	c, err := st.ClusterGet(ctx)
	fresh := errs.Is(err, errs.NotFound)
	if err != nil && !fresh {
		return secrets{}, err
	}
	// the key file is made with the cluster and only then: a server of an existing
	// cluster without it must not invent another
	sealer, err := pki.SealerFromFile(filepath.Join(dataDir, "kek"), fresh)
	if err != nil {
		return secrets{}, err
	}
	if fresh {
		if err := initCluster(ctx, st, sealer, clk); err != nil {
			return secrets{}, err
		}
		if c, err = st.ClusterGet(ctx); err != nil {
			return secrets{}, err
		}
	}
	keyPEM, err := sealer.Open(sealCA, c.CAKeySealed)
	if err != nil {
		return secrets{}, err
	}
	ca, err := pki.Load([]byte(c.CACertPEM), keyPEM)
	if err != nil {
		return secrets{}, err
	}
	cursorKey, err := sealer.Open(sealCursor, c.CursorKeySealed)
	return secrets{c, ca, cursorKey}, err
}

// CheckKey tells whether a key file is that of the cluster whose sealed CA key this
// is.
func CheckKey(keyFile string, caKeySealed []byte) error {
	sealer, err := pki.SealerFromFile(keyFile, false)
	if err == nil {
		_, err = sealer.Open(sealCA, caKeySealed)
	}
	return err
}

func initCluster(ctx context.Context, st *store.Store, sealer *pki.Sealer, clk clock.Clock) error {
	cluster := id.New()
	ca, err := pki.NewAuthority(cluster, clk.Now())
	if err != nil {
		return err
	}
	keyPEM, err := ca.KeyPEM()
	if err != nil {
		return err
	}
	cursorKey := make([]byte, 32)
	rand.Read(cursorKey)
	return st.ClusterInit(ctx, store.Cluster{
		ID: cluster, Incarnation: id.New(), CACertPEM: string(ca.CertPEM()),
		CAKeySealed: sealer.Seal(sealCA, keyPEM), CursorKeySealed: sealer.Seal(sealCursor, cursorKey),
	})
}

// certificates makes this server's certificate and renews it at half its life.
type certificates struct {
	ca    *pki.Authority
	hosts []string
	clock clock.Clock

	mu   sync.Mutex
	cert *tls.Certificate
	made time.Time
}

func newCertificates(ca *pki.Authority, advertise []string, clk clock.Clock) *certificates {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	for _, a := range advertise {
		if h, _, err := net.SplitHostPort(a); err == nil {
			hosts = append(hosts, h)
		}
	}
	return &certificates{ca: ca, hosts: hosts, clock: clk}
}

func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.Now()
	// one that was made in the future was made before the clock was put back
	if age := now.Sub(c.made); c.cert == nil || age < 0 || age > pki.ServerLife/2 {
		cert, err := c.ca.Server(c.hosts, now)
		if err != nil {
			return nil, err
		}
		c.cert, c.made = &cert, now
	}
	return c.cert, nil
}
