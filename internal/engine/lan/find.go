package lan

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/mdns"
)

// mostFound bounds what one search believes.
const mostFound = 256

// Find asks on every interface which servers there are, and listens for answers
// for the time given. The order is that of their names. Nothing that it gives is
// proved.
func Find(ctx context.Context, wait time.Duration) []Announcement {
	heard := make(chan *mdns.ServiceEntry, mostFound)
	var wg sync.WaitGroup
	for _, p := range places() {
		wg.Go(func() {
			// an interface that cannot be asked on has nobody on it for us
			_ = mdns.QueryContext(ctx, &mdns.QueryParam{
				Service: service, Domain: "local", Timeout: wait, Interface: &p.iface, Entries: heard, Logger: quiet,
			})
		})
	}
	wg.Wait()
	close(heard)
	return collect(heard)
}

func collect(heard <-chan *mdns.ServiceEntry) []Announcement {
	var out []Announcement
	for e := range heard {
		a, ok := parse(e.InfoFields)
		if !ok {
			continue
		}
		at := slices.IndexFunc(out, func(b Announcement) bool { return b.Server == a.Server && b.Fingerprint == a.Fingerprint })
		if at < 0 {
			out = append(out, a)
			continue
		}
		for _, addr := range a.Addresses {
			if !slices.Contains(out[at].Addresses, addr) && len(out[at].Addresses) < maxAddresses {
				out[at].Addresses = append(out[at].Addresses, addr)
			}
		}
	}
	slices.SortFunc(out, func(a, b Announcement) int {
		if a.Server < b.Server {
			return -1
		}
		return 1
	})
	return out
}
