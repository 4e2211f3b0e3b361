package agent

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Stream is one bulk connection.
type Stream interface {
	io.ReadWriteCloser
	// CloseWrite tells the other side that nothing more comes.
	CloseWrite() error
}

// Fetch writes an image file's content.
type Fetch func(ctx context.Context, to io.Writer) error

func (a *Agent) ensureImages(ctx context.Context, p Peer, _ *guest, c *nodelink.EnsureImages) (any, error) {
	var reply nodelink.EnsureReply
	for _, f := range c.Files {
		var from []Fetch
		if !c.Look {
			from = a.sources(p, c, f)
		}
		err := a.cfg.Images.Ensure(ctx, f, from...)
		switch {
		case err == nil:
		case c.Look && (errs.Is(err, errs.NotFound) || errs.Is(err, errs.ImageMismatch)):
			reply.Missing = append(reply.Missing, f.SHA256)
		default:
			return nil, err
		}
	}
	return reply, nil
}

// sources are the places to fetch a file from, in this order: the nodes that
// offer it, the server that asks.
func (a *Agent) sources(p Peer, c *nodelink.EnsureImages, f nodelink.ImageFile) (from []Fetch) {
	room := func(fetch Fetch) Fetch {
		return func(ctx context.Context, to io.Writer) error {
			if err := a.makeRoom(f.SizeBytes); err != nil {
				return err
			}
			return fetch(ctx, to)
		}
	}
	if a.cfg.Neighbours != nil {
		for _, s := range c.Sources[f.SHA256] {
			from = append(from, room(func(ctx context.Context, to io.Writer) error {
				ctx, cancel := context.WithTimeout(ctx, neighbourTime)
				defer cancel()
				return a.cfg.Neighbours.Read(ctx, s, to)
			}))
		}
	}
	return append(from, room(func(ctx context.Context, to io.Writer) error { return fromServer(ctx, p, c.Tickets[f.SHA256], to) }))
}

// neighbourTime is how long one node may take to give a file: a third of what a
// fetch may take, so that one that dawdles does not keep the file away.
const neighbourTime = 10 * time.Minute

// Neighbours are the other nodes, as far as this one talks to them.
type Neighbours interface {
	// Offer lets one node, with a ticket, read once what serve writes. It gives the
	// address where, and does not wait.
	Offer(to id.ID, ticket string, serve func(io.Writer) error) (address string, err error)
	// Read writes what another node offers.
	Read(ctx context.Context, s nodelink.ImageSource, to io.Writer) error
	// Land opens a door for one node with a ticket, until shut is called, which ends what
	// has come through it. Each connection is served, under the name that the other node
	// gave it, and closed when serve returns. Those of such names that bare tells of may come as they are,
	// without TLS between the nodes: who serves them knows by himself who has come.
	Land(from id.ID, ticket string, bare func(name string) bool, serve func(ctx context.Context, name string, c io.ReadWriteCloser)) (address string, shut func(), err error)
	// Reach opens a connection to another node's door: under TLS, unless it is bare.
	Reach(ctx context.Context, w Way) (io.ReadWriteCloser, error)
	// Relayed tells whether a server carries what goes to a door or an offer at an address,
	// because this node does not reach it.
	Relayed(address string) bool
	// Admit takes the connection that a server relays, which is opened to p by a ticket, for
	// one that has come to the door or the offer that is open at an address here.
	Admit(ctx context.Context, p Peer, address, ticket string) error
	// Probe tells, by its error, why this node does not reach another one that offers
	// something.
	Probe(ctx context.Context, s nodelink.ImageSource) error
}

// Way is one to another node's door.
type Way struct {
	Node                  id.ID
	Address, Ticket, Name string
	Bare                  bool
}

// offerImage lets another node read a file of this one's cache.
func (a *Agent) offerImage(_ context.Context, _ Peer, c *nodelink.OfferImage) (any, error) {
	if a.cfg.Neighbours == nil {
		return nil, errs.New(errs.Unsupported, "this node gives nothing to other nodes")
	}
	path, err := a.cfg.Images.Path(nodelink.ImageFile{SHA256: c.SHA256})
	if err != nil {
		return nil, err
	}
	at, err := a.cfg.Neighbours.Offer(c.To, c.Ticket, func(to io.Writer) error {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(to, file) // the other node checks the hash of what arrives
		return err
	})
	return nodelink.ImageOffer{Address: at}, err
}

// fromServer reads an image file from the server that asked for it.
func fromServer(ctx context.Context, p Peer, ticket string, to io.Writer) error {
	if ticket == "" {
		return errs.New(errs.NotFound, "the node needs an image file that its server does not have: servers of one cluster need a shared folder of images")
	}
	s, err := p.Bulk(ctx, ticket)
	if err != nil {
		return err
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	_, err = io.Copy(to, s)
	return err
}

// Bounded is a cache that keeps to a limit, and looks after what it holds.
type Bounded interface {
	Images
	// Room evicts, least recently used first, until need more bytes fit, and what is
	// damaged; never what is in use, by SHA-256. Nobody takes up a file meanwhile.
	// errs.NoSpace when the disk has too little room all the same.
	Room(need int64, inUse map[string]bool) error
	// Check reads what was not read for long, and marks what is damaged.
	Check(ctx context.Context) error
}

// makeRoom lets the cache evict what no VM stands on.
func (a *Agent) makeRoom(need int64) error {
	b, ok := a.cfg.Images.(Bounded)
	if !ok {
		return nil
	}
	a.images.Lock()
	defer a.images.Unlock()
	return b.Room(need, a.imagesInUse())
}

// tendImages looks after the cache until ctx ends.
func (a *Agent) tendImages(ctx context.Context) {
	b, ok := a.cfg.Images.(Bounded)
	if !ok {
		return
	}
	tend := func(ctx context.Context) {
		err := b.Check(ctx)
		if err == nil {
			err = a.makeRoom(0)
		}
		if err != nil && ctx.Err() == nil {
			a.log.Error("the image cache could not be looked after", "err", err)
		}
	}
	tend(ctx)
	clock.Every(ctx, a.cfg.Clock, time.Hour, tend)
}

func (a *Agent) imagesInUse() map[string]bool {
	used := map[string]bool{}
	for _, g := range a.all() {
		g.snapshot().images(used)
	}
	return used
}

func (a *Agent) dropImages(_ context.Context, _ Peer, c *nodelink.DropImages) (any, error) {
	a.images.Lock()
	defer a.images.Unlock()
	used := a.imagesInUse()
	var drop, kept []string
	for _, s := range c.SHA256 {
		if used[s] {
			kept = append(kept, s)
		} else {
			drop = append(drop, s)
		}
	}
	if err := a.cfg.Images.Drop(drop); err != nil {
		return nil, err
	}
	if len(kept) > 0 {
		return nil, errs.New(errs.InUse, "VMs of this node still stand on the image").BlockedBy(kept...)
	}
	return nodelink.Done{}, nil
}

// images marks the image files that the VM stands on.
func (r record) images(used map[string]bool) {
	for _, b := range r.Bases {
		used[b.SHA256] = true
	}
	if r.Machine == nil {
		return
	}
	files := []*nodelink.ImageFile{r.Machine.Kernel, r.Machine.Initrd}
	if r.PowerOn {
		files = append(files, r.Machine.CD, r.Machine.Medium) // the next start names it anew, if it is still wanted
	}
	for _, f := range files {
		if f != nil {
			used[f.SHA256] = true
		}
	}
}

func (a *Agent) all() []*guest {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]*guest, 0, len(a.guests))
	for _, g := range a.guests {
		out = append(out, g)
	}
	return out
}
