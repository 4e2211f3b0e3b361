package controltest

import (
	"context"
	"os"
	"strings"

	"github.com/novacron/novacron/internal/engine/blob"
	"github.com/novacron/novacron/internal/vocab/id"
)

// contents is the cluster's folder of images, to which no node ever comes.
type contents struct{ dir *blob.Dir }

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
