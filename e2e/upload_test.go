package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

// An import whose server is killed in the middle goes on by itself, and one that
// was interrupted is gone on with by the same command.
func TestImportGoesOn(t *testing.T) {
	i := up(t, "--sim", "1")
	c, err := client.New(client.Config{Socket: i.state().Summary.Socket})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	disk := bytes.Repeat([]byte("0123456789abcdef"), 96<<16) // 96 MiB: three checkpoints
	third := int64(len(disk) / 3)

	if _, err := c.Images.Create(t.Context(), api.ImageCreate{Name: "killed", Type: "disk"}); err != nil {
		t.Fatal(err)
	}
	killed, back := false, int64(0)
	last := int64(0)
	img, err := c.Images.Upload(t.Context(), "killed", "disk", bytes.NewReader(disk), int64(len(disk)), func(sent int64) {
		if sent < last {
			back = sent
		}
		if last = sent; sent > 2*third && !killed {
			killed = true
			i.kill("server")
		}
	})
	if err != nil || img.Status.State != "ready" || !killed {
		t.Fatalf("%v %+v, killed %v", err, img.Status, killed)
	}
	if back == 0 {
		t.Error("the upload began again from its first byte")
	}

	path := filepath.Join(t.TempDir(), "disk.raw")
	disk[0]++ // another content
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Images.Create(t.Context(), api.ImageCreate{Name: "interrupted", Type: "disk"}); err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	_, err = c.Images.UploadFile(ctx, "interrupted", "disk", path, func(sent int64) {
		if sent > third {
			interrupt()
		}
	})
	if client.CodeOf(err) != client.CodeInterrupted {
		t.Fatalf("interrupted: %v", err)
	}
	i.eventually("the server has noticed", func() (bool, string) {
		open, err := c.Images.Uploads(t.Context(), "interrupted")
		return err == nil && len(open) == 1 && open[0].OffsetBytes > 0, "nothing of it is recorded"
	})
	out := i.must("image", "import", "interrupted", "--disk", path)
	if !strings.Contains(out, "going on with it") || !strings.Contains(out, "ready") {
		t.Errorf("%s", out)
	}
	i.fails(4, "already", "image", "import", "interrupted", "--disk", path)
}
