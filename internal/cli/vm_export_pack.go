package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/novacron/novacron/internal/domain/image/ova"
)

// packAppliance writes the archive: the description, what its files must be, the
// disks.
func packAppliance(ctx context.Context, out io.Writer, name string, text []byte, disks []ova.Out, files []string) error {
	var manifest bytes.Buffer
	sum := sha256.Sum256(text)
	fmt.Fprintf(&manifest, "SHA256(%s.ovf)= %s\n", name, hex.EncodeToString(sum[:]))
	for i, f := range files {
		sum, err := hashFile(ctx, f)
		if err != nil {
			return err
		}
		fmt.Fprintf(&manifest, "SHA256(%s)= %s\n", disks[i].File, sum)
	}
	w := tar.NewWriter(stopped{ctx, out})
	for _, e := range []struct {
		name string
		body []byte
	}{{name + ".ovf", text}, {name + ".mf", manifest.Bytes()}} {
		if err := entry(w, e.name, int64(len(e.body)), bytes.NewReader(e.body)); err != nil {
			return err
		}
	}
	for i, f := range files {
		if err := packFile(w, disks[i], f); err != nil {
			return err
		}
	}
	return w.Close()
}

func packFile(w *tar.Writer, d ova.Out, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return entry(w, d.File, d.Size, f)
}

// entry adds a file; its header says nothing of this machine, nor of the time.
func entry(w *tar.Writer, name string, size int64, body io.Reader) error {
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatGNU}); err != nil {
		return err
	}
	_, err := io.CopyN(w, body, size)
	return err
}
