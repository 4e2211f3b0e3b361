package e2e

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
)

// content lists what the server's folder of images has.
func (i *instance) content() (names []string) {
	i.t.Helper()
	all, err := os.ReadDir(filepath.Join(i.data, "server", "images"))
	if err != nil {
		i.t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// ready tells whether an image is; a server that is away does not tell.
func (i *instance) ready(image string) bool {
	out, err := i.run("image", "show", image, "-o", "json")
	return err == nil && strings.Contains(out, `"ready"`)
}

// The server is killed while it reads an image from a URL, and while it converts it:
// the import goes on by itself, the guest's disk is what it was, and nothing else is
// left. The command that waits does not notice.
func TestImportOutlivesItsServer(t *testing.T) {
	i := up(t, "--nodes", "1", "--accel", "tcg", "--import-networks", "127.0.0.0/8")
	dir := t.TempDir()
	raw, vmdk := filepath.Join(dir, "boot.raw"), filepath.Join(dir, "boot.vmdk")
	disk := bootable(192 << 20)
	for at := 1 << 20; at < len(disk); at += 4096 { // so that reading and converting take a while
		disk[at] = byte(at >> 12)
	}
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, vmdk).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v %s", err, out)
	}
	file, err := os.ReadFile(vmdk)
	if err != nil {
		t.Fatal(err)
	}
	var begun atomic.Int64
	killed := make(chan struct{})
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"boot"`)
		if begun.Add(1) == 1 { // the first reader gets a part, and waits until it is no more
			w.Header().Set("Content-Length", strconv.Itoa(len(file)))
			_, _ = w.Write(file[:len(file)/2])
			_ = http.NewResponseController(w).Flush()
			close(killed)
			<-r.Context().Done()
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
	}))
	t.Cleanup(site.Close)
	done := make(chan string, 1)
	go func() {
		out, err := i.run("image", "import", "boot", "--url", site.URL+"/boot.vmdk")
		if err != nil {
			out = err.Error() + ": " + out
		}
		done <- out
	}()
	<-killed
	i.kill("server")
	converting := false
	i.eventually("the conversion", func() (bool, string) {
		for _, name := range i.content() {
			converting = converting || strings.HasPrefix(name, ".upload-")
		}
		return converting || i.ready("boot"), strings.Join(i.content(), " ")
	})
	t.Logf("the server is killed while it converts, too: %v", converting)
	if converting {
		i.kill("server")
	}
	if out := <-done; !strings.Contains(out, "image boot: ready") {
		t.Errorf("the command says: %s", out)
	}
	i.eventually("the image", func() (bool, string) { return i.ready("boot"), "" })
	img := get[api.Image](i, "image", "show", "boot")
	if got := i.content(); len(got) != 1 || got[0] != img.Status.Files[0].SHA256 {
		t.Errorf("the server has %v", got)
	}
	i.must("vm", "create", "web", "--image", "boot", "--memory", "64MiB", "--start", "--wait")
	i.logged("web", "boots: 1")
	i.must("vm", "delete", "web", "--wait", "--yes")
	i.must("image", "delete", "boot", "--wait")
	if got := i.content(); len(got) > 0 {
		t.Errorf("left on the server: %v", got)
	}
}

// The agent is killed while it sends a disk: the capture goes on with the next one,
// the image has what the disk had, and nothing else is left.
func TestCaptureOutlivesItsAgent(t *testing.T) {
	i := up(t, "--nodes", "1", "--accel", "tcg")
	raw := filepath.Join(t.TempDir(), "boot.raw")
	disk := bootable(256 << 20)
	for at := 1 << 20; at < len(disk); at += 4096 {
		disk[at] = byte(at >> 12)
	}
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	i.must("image", "import", "boot", "--disk", raw)
	i.must("vm", "create", "web", "--image", "boot", "--memory", "64MiB", "--wait")
	i.must("image", "capture", "golden", "--vm", "web", "--wait=false")
	sending := false
	i.eventually("the capture", func() (bool, string) {
		for _, name := range i.content() {
			sending = sending || strings.HasPrefix(name, ".upload-")
		}
		return sending || i.ready("golden"), strings.Join(i.content(), " ")
	})
	t.Logf("the agent is killed while it sends: %v", sending)
	i.kill("node-1")
	i.eventually("the image", func() (bool, string) { return i.ready("golden"), i.must("job", "list") })
	// the same disk once more gives the same file
	i.must("image", "capture", "again", "--vm", "web", "--wait")
	a, b := get[api.Image](i, "image", "show", "golden"), get[api.Image](i, "image", "show", "again")
	if a.Status.Files[0].SHA256 != b.Status.Files[0].SHA256 || a.Status.Files[0].VirtualBytes != api.Bytes(len(disk)) {
		t.Errorf("%+v %+v", a.Status, b.Status)
	}
	if got := i.content(); len(got) != 2 {
		t.Errorf("the server has %v", got)
	}
	i.must("vm", "create", "next", "--image", "golden", "--memory", "64MiB", "--start", "--wait")
	i.logged("next", "boots: 1")
	for _, vm := range []string{"web", "next"} {
		i.must("vm", "delete", vm, "--wait", "--yes")
	}
}
