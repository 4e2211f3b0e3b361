package server

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
)

// announce begins the upload of a disk.
func (r *running) announceFile(image string, content []byte, promise bool) api.ImageUpload {
	r.t.Helper()
	req := api.ImageUploadCreate{File: "disk", SizeBytes: api.Bytes(len(content))}
	if promise {
		req.SHA256 = hexSum(content)
	}
	u, status := call[api.ImageUpload](r, "POST", "/api/v1/images/"+image+"/uploads", req)
	if status != http.StatusCreated || u.ID == "" || u.OffsetBytes != 0 {
		r.t.Fatalf("announce: %d %+v", status, u)
	}
	return u
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func uploadURL(image string, u api.ImageUpload) string {
	return "/api/v1/images/" + image + "/uploads/" + u.ID
}

// newImage makes an image that waits for its disk.
func (r *running) newImage(name string) {
	r.t.Helper()
	if _, status := call[api.Image](r, "POST", "/api/v1/images", api.ImageCreate{Name: name, Type: "disk"}); status != http.StatusCreated {
		r.t.Fatalf("create image: %d", status)
	}
}

// patch sends a part and gives the answer's document, an upload or a problem.
func (r *running) patch(url string, at int, part []byte, headers ...string) (u api.ImageUpload, e api.Error, status int) {
	r.t.Helper()
	status, raw := r.raw("PATCH", url, part, append(headers, "Upload-Offset", strconv.Itoa(at))...)
	var into any = &u
	if status >= 400 {
		into = &e
	}
	if err := json.Unmarshal(raw, into); err != nil {
		r.t.Fatalf("%d %s: %v", status, raw, err)
	}
	return u, e, status
}

// stands waits until an upload stands at an offset: the server has noticed that
// its connection broke.
func (r *running) stands(url string, at int) {
	r.t.Helper()
	r.until(fmt.Sprintf("the upload stands at %d", at), 5*time.Second, func() bool {
		u, _ := call[api.ImageUpload](r, "GET", url, nil)
		return int(u.OffsetBytes) == at
	})
}

// part opens a connection that announces a part and sends some of it.
func (r *running) partial(url string, at, length int, some []byte) net.Conn {
	r.t.Helper()
	c, err := net.Dial("unix", r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	if _, err := fmt.Fprintf(c, "PATCH %s HTTP/1.1\r\nHost: x\r\nUpload-Offset: %d\r\nContent-Length: %d\r\n\r\n%s", url, at, length, some); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// An upload goes on where it broke off: over a broken connection, over another
// one that still hangs, and after the server was stopped and started.
func TestUploadResumes(t *testing.T) {
	db, dir := storetest.New(t), t.TempDir()
	r := start(t, db, dir)
	r.newImage("os")
	disk := bytes.Repeat([]byte("novacron"), 4096)
	u := r.announceFile("os", disk, true)
	url := uploadURL("os", u)
	if got, _, status := r.patch(url, 0, disk[:1000]); status != http.StatusOK || got.OffsetBytes != 1000 || got.Complete {
		t.Fatalf("the first part: %d %+v", status, got)
	}
	_ = r.partial(url, 1000, len(disk)-1000, disk[1000:5000]).Close()
	r.stands(url, 5000)
	// a connection that hangs is ended by the one that comes after it
	hangs := r.partial(url, 5000, len(disk)-5000, disk[5000:6000])
	closed := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, hangs)
		close(closed)
	}()
	at := 0
	r.until("the connection that hung is closed", 10*time.Second, func() bool {
		_, e, status := r.patch(url, 4999, []byte("x"))
		if status == http.StatusConflict && e.Code == "conflict" {
			return false // the one that is to hang has only come now
		}
		if status != http.StatusConflict || e.Code != "offset_mismatch" || len(e.Errors) != 1 {
			t.Errorf("overlap: %d %+v", status, e)
		}
		at, _ = strconv.Atoi(e.Errors[0].Limit)
		select {
		case <-closed:
			return true
		default:
			return false
		}
	})
	if at < 5000 || at > 6000 { // what the server had taken of it
		t.Errorf("the right byte is said to be %d", at)
	}
	r.stop()
	r = start(t, db, dir)
	mine, _ := call[api.List[api.ImageUpload]](r, "GET", "/api/v1/images/os/uploads", nil)
	if len(mine.Items) != 1 || int(mine.Items[0].OffsetBytes) != at || mine.Items[0].SHA256 != hexSum(disk) || mine.Items[0].File != "disk" {
		t.Fatalf("after a restart: %+v", mine.Items)
	}
	got, e, status := r.patch(url, at, disk[at:], "Upload-Complete", "?1")
	if status != http.StatusOK || !got.Complete {
		t.Fatalf("the rest: %d %+v %+v", status, got, e)
	}
	img, _ := call[api.Image](r, "GET", "/api/v1/images/os", nil)
	if img.Status.State != "ready" || len(img.Status.Files) != 1 || img.Status.Files[0].SHA256 != hexSum(disk) {
		t.Errorf("%+v", img.Status)
	}
	if status, _ := r.raw("GET", url, nil); status != http.StatusNotFound {
		t.Errorf("an upload that is complete: %d", status)
	}
	r.onlyFile(hexSum(disk))
}

// onlyFile looks into the folder of images.
func (r *running) onlyFile(want ...string) {
	r.t.Helper()
	entries, err := os.ReadDir(filepath.Join(r.dir, "images"))
	if err != nil {
		r.t.Fatal(err)
	}
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	if fmt.Sprint(have) != fmt.Sprint(want) {
		r.t.Errorf("the folder of images has %v, want %v", have, want)
	}
}

// Parts that do not fit are refused by their exact code, and change nothing.
func TestUploadRefuses(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	r.newImage("os")
	disk := bytes.Repeat([]byte{7}, 4096)
	url := uploadURL("os", r.announceFile("os", disk, false))
	if _, _, status := r.patch(url, 0, disk[:100]); status != http.StatusOK {
		t.Fatal(status)
	}
	for name, c := range map[string]struct {
		at      int
		part    []byte
		headers []string
		status  int
		code    string
	}{
		"Gap":          {101, disk[101:], nil, 409, "offset_mismatch"},
		"Overlap":      {99, disk[99:], nil, 409, "offset_mismatch"},
		"Again":        {0, disk[:100], nil, 409, "offset_mismatch"},
		"Negative":     {-1, disk[:1], nil, 422, "invalid_field"},
		"TooLong":      {100, append(bytes.Clone(disk[100:]), 1), nil, 422, "length_mismatch"},
		"EndsTooEarly": {100, disk[100:200], []string{"Upload-Complete", "?1"}, 422, "length_mismatch"},
		"Complete":     {100, disk[100:200], []string{"Upload-Complete", "yes"}, 422, "invalid_field"},
		"Digest":       {100, disk[100:200], []string{"Digest", "md5=00"}, 422, "invalid_field"},
	} {
		_, e, status := r.patch(url, c.at, c.part, c.headers...)
		if status != c.status || e.Code != c.code {
			t.Errorf("%s: %d %+v", name, status, e)
		}
	}
	// the same of parts whose length is not known before
	for name, c := range map[string]struct{ part, complete string }{
		"TooLong": {strings.Repeat("\x07", 3997), "?0"}, "EndsTooEarly": {"\x07", "?1"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, "http://local"+url, io.MultiReader(strings.NewReader(c.part)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Upload-Offset", "100")
		req.Header.Set("Upload-Complete", c.complete)
		resp, err := r.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnprocessableEntity || resp.Header.Get("Upload-Offset") != "100" {
			t.Errorf("chunked, %s: %d at %s", name, resp.StatusCode, resp.Header.Get("Upload-Offset"))
		}
	}
	if e, status := call[api.Error](r, "POST", "/api/v1/images/os/uploads", api.ImageUploadCreate{File: "disk", SizeBytes: 1}); status != http.StatusConflict || e.Code != "already_exists" {
		t.Errorf("a second upload of one file: %d %+v", status, e)
	}
	if u, e, status := r.patch(url, 100, disk[100:], "Digest", "sha-256="+hexSum(disk)); status != http.StatusOK || !u.Complete {
		t.Errorf("after all that: %d %+v", status, e)
	}
	r.onlyFile(hexSum(disk))
}

// A file that is not what was promised, or not an image, ends with its upload and
// leaves nothing.
func TestUploadIsNotWhatWasPromised(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	r.newImage("os")
	for name, c := range map[string]struct {
		promised, sent []byte
		code           string
	}{
		"AnotherContent": {bytes.Repeat([]byte{1}, 4096), bytes.Repeat([]byte{2}, 4096), "image_mismatch"},
		"NoImage":        {[]byte("KDMV" + strings.Repeat("\x00", 4092)), []byte("KDMV" + strings.Repeat("\x00", 4092)), "invalid_image"},
	} {
		url := uploadURL("os", r.announceFile("os", c.promised, true))
		if _, e, status := r.patch(url, 0, c.sent); status != http.StatusUnprocessableEntity || e.Code != c.code {
			t.Errorf("%s: %d %+v", name, status, e)
		}
		if status, _ := r.raw("GET", url, nil); status != http.StatusNotFound {
			t.Errorf("%s: its upload is left: %d", name, status)
		}
		r.onlyFile()
	}
}

// To everyone but who began it an upload is not there.
func TestUploadOfAnother(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	r.newImage("os")
	url := uploadURL("os", r.announceFile("os", make([]byte, 4096), false))
	k, _ := call[api.Token](r, "POST", "/api/v1/tokens", api.TokenCreate{Name: "other", Role: "administrator"})
	tcp := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}}}
	ask := func(method, url string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+r.info.Address+url, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+k.Token)
		req.Header.Set("Upload-Offset", "0")
		resp, err := tcp.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		var e api.Error
		_ = json.Unmarshal(b, &e)
		return resp.StatusCode, e.Code + e.Detail
	}
	missing := uploadURL("os", api.ImageUpload{ID: "01890a5d-ac96-774b-bcce-b302099a8057"})
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		status, said := ask(method, url)
		none, saidOfNone := ask(method, missing)
		name := strings.NewReplacer(filepath.Base(url), "X", filepath.Base(missing), "X")
		if status != http.StatusNotFound || none != status || name.Replace(said) != name.Replace(saidOfNone) {
			t.Errorf("%s of another's: %d %s; of none: %d %s", method, status, said, none, saidOfNone)
		}
	}
	if status, b := r.raw("GET", "/api/v1/images/os/uploads", nil); status != http.StatusOK || !strings.Contains(string(b), filepath.Base(url)) {
		t.Errorf("its own: %d %s", status, b)
	}
	if status, b := ask("GET", "/api/v1/images/os/uploads"); status != http.StatusOK || strings.Contains(b, filepath.Base(url)) {
		t.Errorf("another's list: %d %s", status, b)
	}
}

// What nobody goes on with is collected after a day, and what was given up or
// belongs to no upload any more, too.
func TestUploadsAreCollected(t *testing.T) {
	db := storetest.New(t)
	r := start(t, db, t.TempDir())
	part := bytes.Repeat([]byte{1}, 100)
	urls := map[string]string{}
	for _, name := range []string{"abandoned", "given-up", "open"} {
		r.newImage(name)
		urls[name] = uploadURL(name, r.announceFile(name, make([]byte, 4096), false))
		if _, _, status := r.patch(urls[name], 0, part); status != http.StatusOK {
			t.Fatal(status)
		}
	}
	if status, b := r.raw("DELETE", urls["given-up"], nil); status != http.StatusNoContent {
		t.Errorf("give up: %d %s", status, b)
	}
	r.newImage("begun")
	r.newImage("long-ago")
	for _, sql := range []string{
		"UPDATE image_uploads SET expires_at = now() - interval '1 second' WHERE id = '" + filepath.Base(urls["abandoned"]) + "'",
		"ALTER TABLE images DISABLE TRIGGER touch",
		"UPDATE images SET updated_at = now() - interval '25 hours' WHERE name IN ('abandoned', 'open', 'long-ago')",
		"ALTER TABLE images ENABLE TRIGGER touch",
	} {
		if _, err := db.Owner.Exec(t.Context(), sql); err != nil {
			t.Fatal(sql, err)
		}
	}
	// the reconcilers run at the start of a server
	dir := r.dir
	r.stop()
	r = start(t, db, dir)
	want := []string{".part-" + filepath.Base(urls["open"])}
	r.until("the abandoned part is removed", 10*time.Second, func() bool {
		entries, err := os.ReadDir(filepath.Join(dir, "images"))
		return err == nil && len(entries) == len(want)
	})
	r.onlyFile(want...)
	for name, status := range map[string]int{"abandoned": 404, "given-up": 404, "open": 200} {
		if got, _ := r.raw("GET", urls[name], nil); got != status {
			t.Errorf("%s: %d, want %d", name, got, status)
		}
	}
	// an image goes with the last upload of it, when nothing was done about it for a
	// day; its name is free again, and that is on record
	names := func() (names []string) {
		all, _ := call[api.List[api.Image]](r, "GET", "/api/v1/images", nil)
		for _, i := range all.Items {
			names = append(names, i.Name)
		}
		return names
	}
	stay := []string{"begun", "given-up", "open"}
	r.until("images that nobody finishes are gone", 20*time.Second, func() bool { return len(names()) == len(stay) })
	if got := names(); !slices.Equal(got, stay) {
		t.Errorf("images %v, want %v", got, stay)
	}
	r.newImage("abandoned")
	r.until("that is on record", 20*time.Second, func() bool {
		a, _ := call[api.List[api.AuditRecord]](r, "GET", "/api/v1/audit?limit=100", nil)
		return slices.ContainsFunc(a.Items, func(k api.AuditRecord) bool {
			return k.Action == "image.delete" && k.Object.Name == "abandoned" && k.Principal == "images-unfinished"
		})
	})
}

// Of two servers that do not share their folder, the one without the part says
// which one has it; servers that share it go on with each other's.
func TestUploadThroughTwoServers(t *testing.T) {
	for name, shared := range map[string]bool{"Shared": true, "Apart": false} {
		t.Run(name, func(t *testing.T) {
			db, one, two := storetest.New(t), t.TempDir(), t.TempDir()
			a := start(t, db, one)
			kek, err := os.ReadFile(filepath.Join(one, "kek"))
			if err == nil {
				err = os.WriteFile(filepath.Join(two, "kek"), kek, 0o600)
			}
			if err == nil && shared {
				err = os.Symlink(filepath.Join(one, "images"), filepath.Join(two, "images"))
			}
			if err != nil {
				t.Fatal(err)
			}
			b := start(t, db, two)
			a.newImage("os")
			disk := bytes.Repeat([]byte{9}, 4096)
			url := uploadURL("os", a.announceFile("os", disk, true))
			if _, _, status := a.patch(url, 0, disk[:100]); status != http.StatusOK {
				t.Fatal(status)
			}
			u, e, status := b.patch(url, 100, disk[100:])
			switch {
			case shared && (status != http.StatusOK || !u.Complete):
				t.Errorf("through the other server: %d %+v", status, e)
			case !shared && (status != http.StatusMisdirectedRequest || e.Code != "wrong_server" || len(e.Blockers) != 1 || e.Blockers[0] != a.info.Address):
				t.Errorf("without the part: %d %+v", status, e)
			case !shared:
				if u, e, status := a.patch(url, 100, disk[100:]); status != http.StatusOK || !u.Complete {
					t.Errorf("where the part is: %d %+v", status, e)
				}
			}
		})
	}
}
