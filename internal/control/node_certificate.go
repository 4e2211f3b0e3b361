package control

import (
	"context"
	"crypto/x509"

	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
)

// Renew makes a new certificate for the key of one that this cluster made and
// that may have expired, as long as the node is not removed and the key is the
// one it is registered with. The caller has proved that the peer holds the key.
func (s *Service) Renew(ctx context.Context, old *x509.Certificate, origin string) (nodelink.RenewReply, error) {
	now := s.cfg.Clock.Now()
	n, keyHash, certPEM, err := s.cfg.CA.RenewNode(old, now)
	if err != nil {
		return nodelink.RenewReply{}, err
	}
	who := Caller{}
	who.Name, who.Role, who.Origin = "node "+n.String(), "node", origin
	err = s.change(ctx, func(tx *store.Tx) error {
		name, err := tx.NodeRenewed(ctx, n, keyHash, now.Add(pki.NodeLife))
		if err != nil {
			return err
		}
		return tx.AuditInsert(ctx, who.record("node.renew_certificate", "node", n, name))
	})
	if err != nil {
		return nodelink.RenewReply{}, err
	}
	return nodelink.RenewReply{CertPEM: string(certPEM)}, nil
}
