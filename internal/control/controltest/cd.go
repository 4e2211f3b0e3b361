package controltest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// AddCD makes a ready image of a CD that each node has in its cache, unless there is one
// of the name, and gives the SHA-256 of what is on it.
func (c *Cluster) AddCD(ctx context.Context, name string) (sum string, err error) {
	content := strings.Repeat(name+"\n", 4096)
	hash := sha256.Sum256([]byte(content))
	f := image.File{Role: image.RoleISO, SHA256: hex.EncodeToString(hash[:]), SizeBytes: int64(len(content)), Format: "raw", VirtualBytes: int64(len(content))}
	if _, err := c.Service.Image(ctx, name); !errs.Is(err, errs.NotFound) {
		return f.SHA256, err
	}
	for _, n := range c.Nodes {
		err := n.Host.Images().Ensure(ctx, nodelink.ImageFile{SHA256: f.SHA256, SizeBytes: f.SizeBytes}, func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, content)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	i := image.Image{ID: id.New(), ProjectID: c.Project, Name: name, Kind: image.ISO}
	return f.SHA256, c.Store.InTx(ctx, func(tx *store.Tx) error {
		if err := tx.ImageInsert(ctx, i); err != nil {
			return err
		}
		if err := tx.ImageFilePut(ctx, i, f); err != nil {
			return err
		}
		return tx.ImageSetState(ctx, i, image.Ready, nil)
	})
}

// Medium tells which image of the node's cache, beside that of its disks, a VM's
// hypervisor has open; false where none runs.
func (h *QEMUHost) Medium(v id.ID) (sum string, live bool) {
	for _, pid := range h.pids() {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		args := strings.Split(string(b), "\x00")
		if err != nil || !strings.HasPrefix(filepath.Base(args[0]), "qemu-system") || !slices.Contains(args, v.String()) {
			continue
		}
		live = true
		fds, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
		for _, fd := range fds {
			to, err := os.Readlink(fd)
			if err == nil && filepath.Dir(to) == filepath.Join(h.dir, "images") && filepath.Base(to) != h.base {
				sum = filepath.Base(to)
			}
		}
	}
	return sum, live
}
