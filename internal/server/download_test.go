package server

import (
	"bytes"
	"crypto/rand"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
)

// A file of an image is read as it was sent, whole or from any byte on; who read it is
// on record.
func TestDownload(t *testing.T) {
	t.Parallel()
	r := start(t, storetest.New(t), t.TempDir())
	disk := make([]byte, 3<<20)
	rand.Read(disk)
	r.newImage("big")
	if _, status := call[api.Image](r, "PUT", "/api/v1/images/big/files/disk", disk); status != http.StatusOK {
		t.Fatal(status)
	}
	const url = "/api/v1/images/big/files/disk"
	ask := func(method, path string, header ...string) (*http.Response, []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://local"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Add(header[i], header[i+1])
		}
		resp, err := r.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, b
	}
	sum, last := hexSum(disk), len(disk)-1
	for _, c := range []struct {
		ranged string
		status int
		want   []byte
	}{
		{"", 200, disk},
		{"bytes=0-", 206, disk},
		{"bytes=1000000-", 206, disk[1000000:]},
		{"bytes=5-9", 206, disk[5:10]},
		{"bytes=" + strconv.Itoa(last) + "-", 206, disk[last:]},
		{"bytes=0-99999999", 206, disk},
		// what nobody needs who resumes is as if it was not asked for
		{"bytes=0-1,5-6", 200, disk},
		{"bytes=-5", 200, disk},
		{"bytes=9-5", 200, disk},
		{"lines=1-2", 200, disk},
		{"bytes=x-", 200, disk},
		{"bytes=99999999999999999999-", 200, disk},
	} {
		resp, b := ask("GET", url, "Range", c.ranged)
		if resp.StatusCode != c.status || !bytes.Equal(b, c.want) || resp.Header.Get("ETag") != `"`+sum+`"` || resp.Header.Get("Digest") != "sha-256="+sum {
			t.Errorf("%q: %d, %d bytes, %v", c.ranged, resp.StatusCode, len(b), resp.Header)
		}
	}
	for _, behind := range []string{"bytes=3145728-", "bytes=999999999999999999-"} {
		if resp, b := ask("GET", url, "Range", behind); resp.StatusCode != http.StatusRequestedRangeNotSatisfiable ||
			resp.Header.Get("Content-Range") != "bytes */3145728" || !strings.Contains(string(b), `"code":"range_not_satisfiable"`) {
			t.Errorf("%s: %d %s %v", behind, resp.StatusCode, b, resp.Header)
		}
	}
	if resp, b := ask("HEAD", url); resp.StatusCode != http.StatusOK || resp.ContentLength != int64(len(disk)) || len(b) != 0 {
		t.Errorf("HEAD: %d %v", resp.StatusCode, resp.Header)
	}
	if resp, b := ask("GET", url, "If-None-Match", `"`+sum+`"`); resp.StatusCode != http.StatusNotModified || len(b) != 0 {
		t.Errorf("who has it: %d", resp.StatusCode)
	}
	r.newImage("empty")
	for _, c := range []struct {
		path string
		code string
	}{{"/api/v1/images/big/files/kernel", "not_found"}, {"/api/v1/images/empty/files/disk", "not_found"}, {"/api/v1/images/none/files/disk", "not_found"}} {
		if e, _ := call[api.Error](r, "GET", c.path, nil); e.Code != c.code {
			t.Errorf("%s: %+v", c.path, e)
		}
	}
	if err := os.Truncate(filepath.Join(r.dir, "images", sum), 5); err != nil {
		t.Fatal(err)
	}
	if e, status := call[api.Error](r, "GET", url, nil); status != http.StatusInternalServerError || !strings.Contains(e.Detail, "damaged") {
		t.Errorf("a damaged file: %d %+v", status, e)
	}
	r.until("who read is on record", 20*time.Second, func() bool {
		a, _ := call[api.List[api.AuditRecord]](r, "GET", "/api/v1/audit?limit=100", nil)
		reads, parts := 0, 0
		for _, k := range a.Items {
			if k.Action == "image.download" && k.Object.Name == "big" && k.Detail["sha256"] == sum {
				reads++
				if k.Detail["range"] == "bytes=5-9" {
					parts++
				}
			}
		}
		return reads >= 14 && parts == 1
	})
}
