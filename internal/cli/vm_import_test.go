package cli

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
)

const applianceText = `<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1">
<References><File id="f" href="disk.vmdk"/></References>
<DiskSection><Disk diskId="d" fileRef="f" capacity="4096"/><Disk diskId="e" capacity="1" capacityAllocationUnits="byte * 2^30"/></DiskSection>
<VirtualSystem id="x"><Name>Web Server #1</Name><VirtualHardwareSection>
<Item><InstanceID>1</InstanceID><ResourceType>3</ResourceType><VirtualQuantity>2</VirtualQuantity></Item>
<Item><InstanceID>2</InstanceID><ResourceType>4</ResourceType><VirtualQuantity>256</VirtualQuantity><AllocationUnits>byte * 2^20</AllocationUnits></Item>
<Item><InstanceID>3</InstanceID><ResourceType>17</ResourceType><HostResource>/disk/d</HostResource></Item>
<Item><InstanceID>4</InstanceID><ResourceType>17</ResourceType><HostResource>/disk/e</HostResource></Item>
<Item><InstanceID>5</InstanceID><ResourceType>10</ResourceType></Item>
<Item><InstanceID>6</InstanceID><ResourceType>35</ResourceType><ElementName>sound</ElementName></Item>
</VirtualHardwareSection></VirtualSystem></Envelope>`

// appliance writes an OVA of a description and a disk, whose manifest has a disk.
func applianceFile(t *testing.T, text, disk, promised string) string {
	t.Helper()
	var b, manifest bytes.Buffer
	for _, f := range [][2]string{{"x.ovf", text}, {"disk.vmdk", promised}} {
		sum := sha256.Sum256([]byte(f[1]))
		fmt.Fprintf(&manifest, "SHA256(%s)= %s\n", f[0], hex.EncodeToString(sum[:]))
	}
	w := tar.NewWriter(&b)
	for _, f := range [][2]string{{"x.ovf", text}, {"x.mf", manifest.String()}, {"disk.vmdk", disk}} {
		if err := w.WriteHeader(&tar.Header{Name: f[0], Size: int64(len(f[1])), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f[1])); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "x.ova")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A dry run prints what would be made, which can be applied, and sends nothing.
func TestVMImportDryRun(t *testing.T) {
	b := newBench(t)
	says := b.args(t, 0, "vm", "import", applianceFile(t, applianceText, "vmdk", "vmdk"), "--dry-run")
	for _, want := range []string{"kind: vm", "name: web-server-1", "cpus: 2", "memory_bytes: 268435456", "image: web-server-1-disk-0", "size_bytes: 1073741824", "left out: sound"} {
		if !strings.Contains(says, want) {
			t.Errorf("%q is not in:\n%s", want, says)
		}
	}
	if got := b.requests(); len(got) > 0 {
		t.Errorf("asked %v", got)
	}
}

// Disks are sent as images, waited for, and the machine is made from them.
func TestVMImport(t *testing.T) {
	b := newBench(t)
	made := half("disk", "uploading")
	converting := made
	converting.Status.Job = "j1"
	b.on("POST /images", 201, made)
	b.on("GET /images/i1", 200, converting)
	b.on("GET /images/i1/uploads", 200, api.List[api.ImageUpload]{})
	b.on("POST /images/i1/uploads", 201, api.ImageUpload{ID: "u1", File: "disk", SizeBytes: 4})
	b.on("PATCH /images/i1/uploads/u1", 200, api.ImageUpload{ID: "u1", OffsetBytes: 4, Complete: true})
	b.on("GET /jobs/j1", 200, someJob("succeeded"))
	b.on("POST /vms", 202, api.Accepted{Job: someJob("queued")})
	b.args(t, 0, "vm", "import", applianceFile(t, applianceText, "vmdk", "vmdk"), "--name", "web", "--start", "--wait=false")
	got := b.requests()
	expect(t, got[0], `POST /api/v1/images {"name":"web-disk-0","type":"disk"}`)
	expect(t, got[len(got)-1], `POST /api/v1/vms {"name":"web","cpus":2,"memory_bytes":268435456,"image":"web-disk-0","disks":[{"size_bytes":4096},{"size_bytes":1073741824}],"nics":[{}],"start":true}`)
}

// An appliance that starts by UEFI makes a machine that does.
func TestVMImportUEFI(t *testing.T) {
	b := newBench(t)
	text := strings.Replace(applianceText, "</VirtualHardwareSection>", `<Config key="firmware" value="efi"/></VirtualHardwareSection>`, 1)
	if says := b.args(t, 0, "vm", "import", applianceFile(t, text, "vmdk", "vmdk"), "--dry-run"); !strings.Contains(says, "firmware: uefi") {
		t.Error(says)
	}
}

// What is not safe, or not what its manifest says, is refused before anything is
// sent.
func TestVMImportRefuses(t *testing.T) {
	b := newBench(t)
	for name, c := range map[string]struct {
		path string
		code int
		says string
	}{
		"another disk": {applianceFile(t, applianceText, "vmdk", "other"), 2, "disk.vmdk"},
		"no machine":   {applianceFile(t, "<Envelope/>", "vmdk", "vmdk"), 2, "machines"},
		"no file":      {"/nonexistent/x.ova", 2, "no such file"},
		"a folder":     {t.TempDir(), 2, "is not a file"},
	} {
		if says := b.args(t, c.code, "vm", "import", c.path); !strings.Contains(says, c.says) {
			t.Errorf("%s: %s", name, says)
		}
	}
	b.args(t, 2, "vm", "import", applianceFile(t, applianceText, "a", "a"), "--name", "no good")
	if got := b.requests(); len(got) > 0 {
		t.Errorf("asked %v", got)
	}
}

func TestNamesOfAppliances(t *testing.T) {
	for text, want := range map[string]string{
		"Web Server #1": "web-server-1", "-a-": "a", "Ünï": "n", "": "", strings.Repeat("ab ", 40): strings.TrimRight(strings.Repeat("ab-", 21), "-"),
	} {
		if got := asName(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}
