package server

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
)

// httpCase is one line of http.jsonl: bytes on a connection of its own, and what
// comes back.
type httpCase struct {
	Name string `json:"name"`
	// Send is what is sent; {{token}} stands for a good token, besides what is in
	// requests.
	Send string `json:"send"`
	// Status of each answer, in their order; 0 for a connection that ends without one.
	Status []int `json:"status"`
	// Code of the last answer; empty where it comes before anything knows of problems.
	Code string `json:"code"`
	// Absent must stand nowhere in what comes back.
	Absent string `json:"absent"`
	// Open: does the connection stay open? Otherwise it must end.
	Open bool `json:"open"`
}

// What a client may put on the wire gets its exact answer, and no byte more is taken
// for a request than should be; nothing is changed.
func TestBadHTTP(t *testing.T) {
	db := storetest.New(t)
	r := start(t, db, t.TempDir())
	r.image("tiny")
	token := r.token("http").Token
	if a := r.asker(token)("GET", "/api/v1/vms", nil); a.status != http.StatusOK {
		t.Fatalf("the token: %d", a.status)
	}
	before := written(t, db, actionAuthenticate)
	for _, c := range lineByLine[httpCase](t, filepath.Join(corpus, "http.jsonl")) {
		t.Run(c.Name, func(t *testing.T) {
			conn, err := tls.Dial("tcp", r.info.Address, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			go func() { _, _ = io.WriteString(conn, strings.ReplaceAll(expand(c.Send), "{{token}}", token)) }()
			back := &strings.Builder{}
			rd := bufio.NewReader(io.TeeReader(conn, back))
			var last *http.Response
			var body []byte
			for i, want := range c.Status {
				if last, err = http.ReadResponse(rd, nil); err != nil && want == 0 {
					return
				}
				if err != nil {
					t.Fatalf("answer %d: %v; so far %q", i, err, back)
				}
				body, _ = io.ReadAll(last.Body)
				if last.StatusCode != want {
					t.Errorf("answer %d is %d %.300s, want %d", i, last.StatusCode, body, want)
				}
			}
			var e api.Error
			if err := json.Unmarshal(body, &e); c.Code != "" && (err != nil || e.Code != c.Code) {
				t.Errorf("answered %.300s, want %s", body, c.Code)
			}
			if c.Absent != "" && strings.Contains(strings.ToLower(back.String()), strings.ToLower(c.Absent)) {
				t.Errorf("%q comes back in %q", c.Absent, back)
			}
			_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
			if c.Open {
				_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") // the answer tells
			} else if _, err = rd.ReadByte(); errors.Is(err, io.EOF) || err == nil || !strings.Contains(err.Error(), "timeout") {
				if err == nil {
					t.Errorf("there is more after the answers: %q", back)
				}
				return
			}
			if !c.Open {
				t.Error("the connection stays open")
			} else if last, err = http.ReadResponse(rd, nil); err != nil || last.StatusCode != http.StatusOK {
				t.Errorf("the connection is not usable any more: %v %v", last, err)
			}
		})
	}
	if diff := cmp.Diff(before, written(t, db, actionAuthenticate)); diff != "" {
		t.Errorf("rows before and after:\n%s", diff)
	}
}
