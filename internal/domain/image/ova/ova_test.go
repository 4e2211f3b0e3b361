package ova

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

const description = `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:id="f1" ovf:href="disk.vmdk" ovf:size="8"/>
    <File ovf:id="f2" ovf:href="data.vmdk" ovf:size="4"/>
  </References>
  <DiskSection><Info>Disks</Info>
    <Disk ovf:diskId="d2" ovf:fileRef="f2" ovf:capacity="2" ovf:capacityAllocationUnits="byte * 2^30"/>
    <Disk ovf:diskId="d1" ovf:fileRef="f1" ovf:capacity="1073741824" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
    <Disk ovf:diskId="d3" ovf:capacity="5" ovf:capacityAllocationUnits="GB"/>
  </DiskSection>
  <NetworkSection><Info>Networks</Info><Network ovf:name="nat"/></NetworkSection>
  <VirtualSystem ovf:id="web">
    <Info>A machine</Info><Name>Web server</Name>
    <VirtualHardwareSection><Info>Hardware</Info>
      <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>512</rasd:VirtualQuantity></Item>
      <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceType>5</rasd:ResourceType></Item>
      <Item><rasd:InstanceID>4</rasd:InstanceID><rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>1</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/d2</rasd:HostResource><rasd:InstanceID>6</rasd:InstanceID><rasd:Parent>4</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>/disk/d1</rasd:HostResource><rasd:InstanceID>5</rasd:InstanceID><rasd:Parent>4</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>2</rasd:AddressOnParent><rasd:HostResource>/disk/d3</rasd:HostResource><rasd:InstanceID>7</rasd:InstanceID><rasd:Parent>4</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:InstanceID>8</rasd:InstanceID><rasd:ResourceType>10</rasd:ResourceType><rasd:Connection>nat</rasd:Connection></Item>
      <Item><rasd:ElementName>sound</rasd:ElementName><rasd:InstanceID>9</rasd:InstanceID><rasd:ResourceType>35</rasd:ResourceType></Item>
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="bios"/>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>`

// piece is an entry of an archive to be.
type piece struct {
	head tar.Header
	body string
}

func plainFile(name, body string) piece {
	return piece{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(body))}, body}
}

// sums is a manifest of pieces.
func sums(ps ...piece) piece {
	var b strings.Builder
	for _, p := range ps {
		s := sha256.Sum256([]byte(p.body))
		fmt.Fprintf(&b, "SHA256(%s)= %s\n", p.head.Name, hex.EncodeToString(s[:]))
	}
	return plainFile("web.mf", b.String())
}

func pack(t testing.TB, ps ...piece) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, p := range ps {
		h := p.head
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(p.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// parts are those of a good appliance, with a description.
func parts(text string) []piece {
	return []piece{plainFile("web.ovf", text), plainFile("disk.vmdk", "contents"), plainFile("data.vmdk", "data")}
}

func good(t testing.TB, text string) []byte {
	p := parts(text)
	return pack(t, p[0], sums(p...), p[1], p[2])
}

// read goes the way of an import.
func read(b []byte) (Machine, error) {
	a, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return Machine{}, err
	}
	m, err := a.Machine()
	if err != nil {
		return m, err
	}
	for _, d := range m.Disks {
		if e, ok := a.Entry(d.File); ok {
			err = errors.Join(err, a.Verify(e, nil))
		}
	}
	return m, err
}

func TestMachine(t *testing.T) {
	want := Machine{
		Name: "Web server", CPUs: 2, MemoryBytes: 512 * unit.MiB, NICs: 1,
		Disks: []Disk{{"disk.vmdk", unit.GiB}, {"data.vmdk", 2 * unit.GiB}, {"", 5 * unit.GiB}}, Ignored: []string{"sound"},
	}
	if m, err := read(good(t, description)); err != nil || !reflect.DeepEqual(m, want) {
		t.Errorf("%+v %v", m, err)
	}
	want.UEFI = true
	for _, text := range []string{
		strings.Replace(description, `"bios"`, `"efi"`, 1),
		strings.Replace(description, "</VirtualSystem>", `<b:Machine xmlns:b="x"><b:Hardware><b:Firmware type="EFI"/></b:Hardware></b:Machine></VirtualSystem>`, 1),
	} {
		if m, err := read(good(t, text)); err != nil || !reflect.DeepEqual(m, want) {
			t.Errorf("%+v %v", m, err)
		}
	}
	b := good(t, description)
	a, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	e, _ := a.Entry("disk.vmdk")
	if got, err := io.ReadAll(a.Content(e)); err != nil || string(got) != "contents" {
		t.Errorf("%q %v", got, err)
	}
	stop := errors.New("stop")
	if err := a.Verify(e, func(io.Reader) io.Reader { return failing{stop} }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

// Read implements io.Reader.
func (f failing) Read([]byte) (int, error) { return 0, f.err }

// hostile are archives that are refused with the name of an entry.
func hostile(t testing.TB) map[string]struct {
	entry string
	bytes []byte
} {
	p := parts(description)
	m := sums(p...)
	type h = struct {
		entry string
		bytes []byte
	}
	with := func(x piece) h { return h{x.head.Name, pack(t, p[0], m, p[1], p[2], x)} }
	kind := func(name string, k byte, link string) h {
		return with(piece{tar.Header{Name: name, Typeflag: k, Linkname: link, Mode: 0o600}, ""})
	}
	whole := pack(t, p[0], m, p[1], p[2])
	out := map[string]h{
		"up":                                 with(plainFile("../disk.vmdk", "x")),
		"up in the middle":                   with(plainFile("a/../../disk.vmdk", "x")),
		"absolute":                           with(plainFile("/etc/passwd", "x")),
		"in a folder":                        with(plainFile("folder/disk.vmdk", "x")),
		"of Windows":                         with(plainFile(`..\disk.vmdk`, "x")),
		"hidden":                             with(plainFile(".profile", "x")),
		"dots":                               with(plainFile("..", "x")),
		"a newline":                          with(plainFile("a\nb", "x")),
		"turned round":                       with(plainFile("a\u202eb", "x")),
		"no UTF-8":                           with(plainFile("a\xffb", "x")),
		"a long name":                        with(plainFile(strings.Repeat("a", 256), "x")),
		"symlink":                            kind("link", tar.TypeSymlink, "/etc/passwd"),
		"hard link":                          kind("link", tar.TypeLink, "disk.vmdk"),
		"device":                             kind("disk", tar.TypeBlock, ""),
		"console":                            kind("disk", tar.TypeChar, ""),
		"pipe":                               kind("disk", tar.TypeFifo, ""),
		"a folder":                           kind("folder/", tar.TypeDir, ""),
		"twice":                              with(plainFile("disk.vmdk", "other")),
		"twice in capitals":                  with(plainFile("DISK.vmdk", "other")),
		"a second OVF":                       {"more.ovf", pack(t, p[0], sums(append(parts(description), plainFile("more.ovf", "x"))...), p[1], p[2], plainFile("more.ovf", "x"))},
		"a second manifest":                  {"more.mf", pack(t, p[0], m, p[1], p[2], plainFile("more.mf", m.body))},
		"not in the manifest":                with(plainFile("more.vmdk", "x")),
		"no manifest":                        {"web.ovf", pack(t, p...)},
		"a manifest of nothing":              {"web.ovf", pack(t, p[0], plainFile("web.mf", ""), p[1], p[2])},
		"a manifest of another file":         {"gone.vmdk", pack(t, p[0], sums(append(parts(description), plainFile("gone.vmdk", ""))...), p[1], p[2])},
		"a manifest twice over":              {"web.mf", pack(t, p[0], plainFile("web.mf", m.body+m.body), p[1], p[2])},
		"a manifest cut short":               {"web.mf", pack(t, p[0], plainFile("web.mf", m.body[:len(m.body)-9]), p[1], p[2])},
		"a manifest that is none":            {"web.mf", pack(t, p[0], plainFile("web.mf", "MD5(web.ovf)= 00"), p[1], p[2])},
		"a manifest of 2 MiB":                {"web.mf", pack(t, p[0], plainFile("web.mf", strings.Repeat("\n", 2<<20)), p[1], p[2])},
		"another disk":                       {"disk.vmdk", pack(t, p[0], m, plainFile("disk.vmdk", "Contents"), p[2])},
		"another description":                {"web.ovf", pack(t, plainFile("web.ovf", description+" "), m, p[1], p[2])},
		"cut in a disk":                      {"data.vmdk", whole[:len(whole)-1024-510]},
		"cut in a header":                    {"data.vmdk", whole[:len(whole)-1024-1024-300]},
		"a disk that is named and not there": {"", nil},
		"a description of 2 MiB":             {"web.ovf", good(t, description+strings.Repeat(" ", 2<<20))},
		"a document type":                    {"web.ovf", good(t, strings.Replace(description, "?>", "?><!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\">]>", 1))},
		"deep":                               {"web.ovf", good(t, strings.Repeat("<a>", 40)+strings.Repeat("</a>", 40))},
		"wide":                               {"web.ovf", good(t, "<a>"+strings.Repeat("<b/>", 3*maxElements)+"</a>")},
		"no XML":                             {"web.ovf", good(t, "<a")},
		"other characters":                   {"web.ovf", good(t, strings.Replace(description, "UTF-8", "UTF-7", 1))},
	}
	out["a disk that is named and not there"] = h{"/etc/passwd", good(t, strings.Replace(description, "disk.vmdk", "/etc/passwd", 1))}
	var many []piece
	for i := range 70 {
		many = append(many, plainFile(fmt.Sprint("disk", i), "x"))
	}
	out["many"] = h{"disk64", pack(t, many...)}
	// sparse files, as GNU tar writes them
	old := pack(t, p[0], m, p[1], p[2])
	old[156] = tar.TypeGNUSparse
	out["sparse of old"] = h{"", refit(old)}
	pax := tar.Header{Name: "disk9.vmdk", Typeflag: tar.TypeReg, Size: 1, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}}
	packed := pack(t, p[0], m, p[1], p[2], piece{pax, "x"})
	out["sparse"] = h{"", bytes.Replace(packed, []byte("27 SCHILY.xattr.user.a=b\n"), []byte("27 GNU.sparse.size=999999\n")[:25], 1)}
	return out
}

// refit sums the first header of an archive anew.
func refit(b []byte) []byte {
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func TestUnsafeArchives(t *testing.T) {
	for name, h := range hostile(t) {
		_, err := read(h.bytes)
		if !errs.Is(err, errs.ArchiveUnsafe) || !strings.Contains(err.Error(), errs.Clip(h.entry)) {
			t.Errorf("%s (%q): %v", name, h.entry, err)
		}
	}
}

// What is no appliance of ours is refused for what it is.
func TestDescriptions(t *testing.T) {
	change := func(old, now string) []byte {
		if !strings.Contains(description, old) {
			t.Fatalf("%q is not there", old)
		}
		return good(t, strings.Replace(description, old, now, 1))
	}
	for name, c := range map[string]struct {
		bytes []byte
		code  errs.Code
	}{
		"no description":       {pack(t, plainFile("disk.vmdk", "x"), plainFile("web.mf", "")), errs.InvalidImage},
		"another document":     {good(t, "<html/>"), errs.InvalidImage},
		"no machine":           {good(t, strings.ReplaceAll(description, "VirtualSystem", "Other")), errs.Unsupported},
		"two machines":         {change("</Envelope>", "<VirtualSystem/></Envelope>"), errs.Unsupported},
		"many machines":        {change("</Envelope>", "<VirtualSystemCollection/></Envelope>"), errs.Unsupported},
		"hardware twice":       {change("</VirtualSystem>", "<VirtualHardwareSection/></VirtualSystem>"), errs.Unsupported},
		"no CPUs":              {change("<rasd:VirtualQuantity>2<", "<rasd:VirtualQuantity>0<"), errs.InvalidImage},
		"CPUs below none":      {change("<rasd:VirtualQuantity>2<", "<rasd:VirtualQuantity>-2<"), errs.InvalidImage},
		"CPUs of no number":    {change("<rasd:VirtualQuantity>2<", "<rasd:VirtualQuantity>two<"), errs.InvalidImage},
		"memory that wraps":    {change("<rasd:VirtualQuantity>512<", "<rasd:VirtualQuantity>9223372036854775807<"), errs.InvalidImage},
		"memory of no unit":    {change("byte * 2^20", "shillings"), errs.InvalidImage},
		"memory of 2^99":       {change("byte * 2^20", "byte * 2^99"), errs.InvalidImage},
		"a disk of no size":    {change(`ovf:capacity="1073741824"`, ""), errs.InvalidImage},
		"a disk below none":    {change(`ovf:capacity="1073741824"`, `ovf:capacity="-1"`), errs.InvalidImage},
		"a disk with a parent": {change(`ovf:diskId="d1"`, `ovf:diskId="d1" ovf:parentRef="d2"`), errs.InvalidImage},
		"a disk of no file":    {change(`ovf:fileRef="f1"`, `ovf:fileRef="f9"`), errs.InvalidImage},
		"a disk in parts":      {change(`ovf:size="8"`, `ovf:size="8" ovf:chunkSize="4"`), errs.Unsupported},
		"a packed disk":        {change(`ovf:size="8"`, `ovf:size="8" ovf:compression="gzip"`), errs.Unsupported},
		"an unknown disk":      {change("/disk/d1", "/disk/d9"), errs.InvalidImage},
		"one disk twice":       {change("/disk/d1", "/disk/d2"), errs.InvalidImage},
	} {
		if m, err := read(c.bytes); !errs.Is(err, c.code) {
			t.Errorf("%s: %+v %v", name, m, err)
		}
	}
}

// Headers without an end are not read to theirs.
func TestHeadersAreBounded(t *testing.T) {
	one := pack(t, piece{tar.Header{Name: "a", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"a.b": strings.Repeat("x", 900_000)}}, ""})
	header := one[:len(one)-1024-512]
	b := bytes.Repeat(header, 40)
	r := &counting{r: bytes.NewReader(b)}
	if _, err := Open(r, int64(len(b))); !errs.Is(err, errs.ArchiveUnsafe) || r.n > maxHeaders+512 {
		t.Errorf("%d bytes read: %v", r.n, err)
	}
}

type counting struct {
	r io.ReaderAt
	n int64
}

// ReadAt implements io.ReaderAt.
func (c *counting) ReadAt(p []byte, at int64) (int, error) {
	n, err := c.r.ReadAt(p, at)
	c.n += int64(n)
	return n, err
}

// FuzzArchive: nothing panics, and what is refused is refused for what it is.
func FuzzArchive(f *testing.F) {
	f.Add(good(f, description))
	for _, h := range hostile(f) {
		if len(h.bytes) < 100_000 {
			f.Add(h.bytes)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := read(b); err != nil && !errs.Is(err, errs.ArchiveUnsafe) && !errs.Is(err, errs.InvalidImage) && !errs.Is(err, errs.Unsupported) {
			t.Error(err)
		}
	})
}

// FuzzDescription: whatever a description says, it says a machine with sizes that
// one can have, or is refused.
func FuzzDescription(f *testing.F) {
	f.Add(description)
	f.Add("<Envelope/>")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := read(good(t, text))
		switch {
		case err == nil && (m.CPUs < 1 || m.MemoryBytes < 1):
			t.Errorf("%+v", m)
		case err != nil && !errs.Is(err, errs.ArchiveUnsafe) && !errs.Is(err, errs.InvalidImage) && !errs.Is(err, errs.Unsupported):
			t.Error(err)
		}
	})
}

// What is described is read again as it was.
func TestDescribe(t *testing.T) {
	want := Machine{Name: `a "b" & <c>`, CPUs: 3, MemoryBytes: 300 * unit.MiB, NICs: 2, Disks: []Disk{{"disk.vmdk", unit.GiB}, {"data.vmdk", 512}}}
	for _, want.UEFI = range []bool{false, true} {
		text := string(Describe(want, []Out{{"disk.vmdk", 8, unit.GiB}, {"data.vmdk", 4, 512}}))
		if m, err := read(good(t, text)); err != nil || !reflect.DeepEqual(m, want) {
			t.Errorf("%+v %v", m, err)
		}
	}
}
