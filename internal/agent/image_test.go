package agent

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// shelf is a server that has image files, by their tickets.
type shelf map[string]string

// Bulk implements Peer.
func (s shelf) Bulk(_ context.Context, ticket string) (Stream, error) {
	here, there := net.Pipe()
	go func() {
		_, _ = io.Copy(there, strings.NewReader(s[ticket]))
		_ = there.Close()
	}()
	return halfClose{here}, nil
}

type halfClose struct{ net.Conn }

// CloseWrite implements Stream.
func (h halfClose) CloseWrite() error { return nil }

// fetch has the agent bring a file of that content.
func (b *bench) fetch(step, content string) error {
	b.t.Helper()
	f := fileOf(content)
	f.Format, f.VirtualBytes = "raw", unit.MiB
	c := &nodelink.EnsureImages{Header: b.head, Files: []nodelink.ImageFile{f}, Tickets: map[string]string{f.SHA256: "t"}}
	c.Step = step
	body, err := json.Marshal(c)
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = b.agent.Handle(b.t.Context(), shelf{"t": content}, c.Method(), body)
	return err
}

// A file that a VM stands on is never evicted; once it is damaged, the VM is not
// launched on it until it was fetched again.
func TestImageUnderAVM(t *testing.T) {
	b := newBench(t)
	cache, ok := b.agent.cfg.Images.(*Cache)
	if !ok {
		t.Fatal("not the real cache")
	}
	cache.limit = 1 // everything that nobody needs goes
	content := text("x")
	f := fileOf(content)
	f.Format, f.VirtualBytes = "raw", unit.MiB
	if err := b.fetch("fetch image", content); err != nil {
		t.Fatal(err)
	}
	disks := &nodelink.CreateVolumes{Volumes: []nodelink.VolumeSpec{{ID: b.volume, SizeBytes: unit.MiB, Base: &f}}}
	if _, err := b.send("make disks", disks); err != nil {
		t.Fatal(err)
	}
	b.restart() // what was fetched of late is forgotten, what VMs stand on is not
	cache, _ = b.agent.cfg.Images.(*Cache)
	cache.limit = 1
	if err := b.agent.makeRoom(0); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(b.dir, "images", f.SHA256)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("a file that a VM stands on was evicted: %v", err)
	}
	flip(t, path, false)
	if _, err := b.send("launch", b.launchCommand()); !errs.Is(err, errs.ImageMismatch) {
		t.Fatalf("launched on a damaged file: %v", err)
	}
	if err := b.agent.makeRoom(0); err != nil {
		t.Fatal(err)
	}
	if err := b.fetch("launch: fetch image", content); err != nil {
		t.Fatal(err)
	}
	if _, err := b.send("launch: again", b.launchCommand()); err != nil {
		t.Fatalf("launched on a whole file: %v", err)
	}
	b.head.OpSeq, b.head.Operation = 2, id.New()
	if _, err := b.send("power off", &nodelink.PowerOff{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.send("erase", &nodelink.Erase{Volumes: []id.ID{b.volume}}); err != nil {
		t.Fatal(err)
	}
	b.restart()
	cache, _ = b.agent.cfg.Images.(*Cache)
	cache.limit = 1
	if err := b.agent.makeRoom(0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a file that no VM stands on any more is kept above the limit: %v", err)
	}
}

// A file that neither the node nor its server has is refused in those words.
func TestImageNobodyHas(t *testing.T) {
	b := newBench(t)
	_, err := b.send("fetch image", &nodelink.EnsureImages{Files: []nodelink.ImageFile{fileOf("x")}})
	if !errs.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "shared folder") {
		t.Errorf("%v", err)
	}
}
