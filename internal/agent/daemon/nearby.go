package daemon

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/novacron/novacron/internal/engine/lan"
)

const (
	// alone is how long no server is reached before the network is asked, and between
	// two times that it is.
	alone = 15 * time.Second
	// listen is how long answers are waited for.
	listen = 2 * time.Second
)

// lookout asks the local network for servers while none of those known is reached:
// all of them may have moved. What it hears is only dialled; that a server is one of
// this cluster its certificate proves.
func (l *links) lookout(ctx context.Context) {
	mine := sha256.Sum256(l.who.root.RawSubjectPublicKeyInfo)
	for l.clock.Sleep(ctx, alone) == nil {
		if l.alive.Load() > 0 {
			continue
		}
		l.try(ctx, nearby(ctx, mine))
	}
}

// try dials servers that no server has listed: once, unless the session lists them.
func (l *links) try(ctx context.Context, addrs []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, addr := range addrs {
		if l.kept[addr] {
			continue
		}
		l.log.Info("a server of this cluster is announced on the local network", "server", addr)
		l.kept[addr] = true
		l.wg.Go(func() { l.keep(ctx, addr) })
	}
}

// nearby are the addresses of servers that are announced with a pin.
func nearby(ctx context.Context, pin [32]byte) []string {
	var out []string
	for _, a := range lan.Find(ctx, listen) {
		if a.Pin == pin {
			out = append(out, a.Addresses...)
		}
	}
	return out
}
