package controltest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/engine/blob"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// elsewhere is what the cluster has to do with besides its nodes.
type elsewhere struct {
	folder  string // of images
	site    *site
	streams *streams
}

func newElsewhere(tb testing.TB) elsewhere {
	tb.Helper()
	return elsewhere{filepath.Join(tb.TempDir(), "images"), newSite(tb), &streams{open: map[string]net.Conn{}}}
}

// contents is the cluster's folder of images, to which no node ever comes.
type contents struct {
	dir     *blob.Dir
	streams *streams
}

// streams are the bulk streams that nodes were asked for, by ticket.
type streams struct {
	mu   sync.Mutex
	open map[string]net.Conn
}

// Bulk implements agent.Peer.
func (s *streams) Bulk(_ context.Context, ticket string) (agent.Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.open[ticket]
	delete(s.open, ticket)
	if c == nil {
		return nil, errs.New(errs.NotFound, "there is no such ticket")
	}
	return half{c}, nil
}

// half is a stream whose end is that of both its ways.
type half struct{ net.Conn }

// CloseWrite implements agent.Stream.
func (h half) CloseWrite() error { return h.Close() }

// Read implements flows.Files.
func (f contents) Read(_ context.Context, ask func(ticket string) error) (io.ReadCloser, error) {
	ours, theirs := net.Pipe()
	ticket := id.New().String()
	f.streams.mu.Lock()
	f.streams.open[ticket] = theirs
	f.streams.mu.Unlock()
	if err := ask(ticket); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	return ours, nil
}

// Ticket implements flows.Files.
func (contents) Ticket(string) (string, error) { return "ticket", nil }

// Remove implements flows.Files.
func (f contents) Remove(sum string) error { return f.dir.Remove(sum) }

// leftContent lists what lies in the folder of images and is no image's.
func (c *Cluster) leftContent(ctx context.Context) (out []string, err error) {
	used, err := c.Store.ImageSums(ctx)
	if err != nil {
		return nil, err
	}
	uploads, err := c.Store.UploadIDs(ctx)
	if err != nil {
		return nil, err
	}
	all, err := os.ReadDir(c.folder)
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		part, _ := id.Parse(strings.TrimPrefix(e.Name(), ".part-"))
		if !used[e.Name()] && !uploads[part] {
			out = append(out, "a file of no image: "+e.Name())
		}
	}
	return out, nil
}
