package control

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
)

const (
	// macDraws is how many addresses are drawn at once for each interface, and macRounds
	// how often: with half of all given, one interface in a thousand billion gets none.
	macDraws, macRounds = 8, 5
)

// giveMACs gives network interfaces addresses that nobody has: of those that are drawn,
// the first that the database does not know. Two transactions that draw the same free one
// at the same moment are left to its uniqueness there.
func (s *Service) giveMACs(ctx context.Context, tx *store.Tx, nics []vm.NIC) error {
	next := 0
	for range macRounds {
		if next == len(nics) {
			return nil
		}
		drawn, err := s.drawMACs(macDraws * (len(nics) - next))
		if err != nil {
			return err
		}
		free, err := tx.MACsFree(ctx, drawn)
		if err != nil {
			return err
		}
		next += give(nics[next:], free, nics[:next])
	}
	if next < len(nics) {
		return errs.New(errs.NoSpace, "no free address was found for a network interface: those that begin with 02:4e:43 are given out; delete VMs that nobody needs")
	}
	return nil
}

// give hands out addresses, each once, and tells how many interfaces have got one.
func give(nics []vm.NIC, free []string, have []vm.NIC) (given int) {
	used := map[string]bool{}
	for _, n := range have {
		used[n.MAC] = true
	}
	for _, mac := range free {
		if given == len(nics) {
			break
		}
		if !used[mac] {
			nics[given].MAC, used[mac] = mac, true
			given++
		}
	}
	return given
}

// drawMACs draws addresses of our own range: locally administered, 02:4e:43, and 24
// random bits.
func (s *Service) drawMACs(n int) ([]string, error) {
	from := s.cfg.Random
	if from == nil {
		from = rand.Reader
	}
	b := make([]byte, 3*n)
	if _, err := io.ReadFull(from, b); err != nil {
		return nil, fmt.Errorf("draw addresses: %w", err)
	}
	out := make([]string, 0, n)
	for ; len(b) > 0; b = b[3:] {
		out = append(out, fmt.Sprintf("02:4e:43:%02x:%02x:%02x", b[0], b[1], b[2]))
	}
	return out, nil
}
