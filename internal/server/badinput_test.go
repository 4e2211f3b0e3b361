package server

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// badCase is one line of testdata/badinput/*.jsonl: what comes, and what it gets.
type badCase struct {
	Name   string            `json:"name"`
	Method string            `json:"method"`
	Path   string            `json:"path"`
	Header map[string]string `json:"header"`
	// Body is sent as it is; Base64-free, so that a person can read the corpus.
	// {{N:x}} stands for x, N times over.
	Body   string `json:"body"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	Field  string `json:"field"`
}

const corpus = "../../testdata/badinput"

func cases(t testing.TB) (out []badCase) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(corpus, "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		sc := bufio.NewScanner(f)
		sc.Buffer(nil, 1<<20)
		for line := 1; sc.Scan(); line++ {
			if strings.TrimSpace(sc.Text()) == "" {
				continue
			}
			var c badCase
			if err := json.Unmarshal(sc.Bytes(), &c); err != nil {
				t.Fatalf("%s:%d: %v", path, line, err)
			}
			c.Body, c.Path = expand(c.Body), expand(c.Path)
			out = append(out, c)
		}
	}
	return out
}

// expand writes out {{N:x}}.
func expand(s string) string {
	for {
		a := strings.Index(s, "{{")
		b := strings.Index(s, "}}")
		if a < 0 || b < a {
			return s
		}
		count, what, _ := strings.Cut(s[a+2:b], ":")
		n := 0
		for _, d := range count {
			n = n*10 + int(d-'0')
		}
		s = s[:a] + strings.Repeat(what, n) + s[b+2:]
	}
}

// Bad input gets its exact code, changes nothing and leaves nothing.
func TestBadInput(t *testing.T) {
	db := storetest.New(t)
	r := start(t, db, t.TempDir())
	r.image("tiny")
	before := r.rows(db)
	for _, c := range cases(t) {
		t.Run(c.Name, func(t *testing.T) {
			var headers []string
			for k, v := range c.Header {
				headers = append(headers, k, v)
			}
			status, raw := r.raw(c.Method, c.Path, c.Body, headers...)
			var e api.Error
			if err := json.Unmarshal(raw, &e); err != nil {
				t.Fatalf("answered %d %.200s: %v", status, raw, err)
			}
			if status != c.Status || e.Code != c.Code {
				t.Errorf("answered %d %s (%s), want %d %s", status, e.Code, e.Detail, c.Status, c.Code)
			}
			if c.Field != "" && (len(e.Errors) == 0 || e.Errors[0].Field != c.Field) {
				t.Errorf("names %+v, want %s", e.Errors, c.Field)
			}
			if e.RequestID == "" || strings.Contains(e.Detail, "SQL") || strings.Contains(e.Detail, "/internal/") {
				t.Errorf("answer %+v", e)
			}
		})
	}
	if after := r.rows(db); after != before {
		t.Errorf("rows before %s, after %s", before, after)
	}
}

// rows counts what users could have made.
func (r *running) rows(db *storetest.DB) string {
	r.t.Helper()
	var out string
	err := db.App.QueryRow(r.t.Context(), `SELECT concat_ws(' ', (SELECT count(*) FROM vms), (SELECT count(*) FROM images), (SELECT count(*) FROM image_files),
		(SELECT count(*) FROM jobs), (SELECT count(*) FROM storage_volumes), (SELECT count(*) FROM tokens), (SELECT count(*) FROM idempotency_keys),
		(SELECT count(*) FROM audit_log WHERE outcome = 'accepted'))`).Scan(&out)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func FuzzDecodeStrict(f *testing.F) {
	for _, c := range cases(f) {
		f.Add([]byte(c.Body))
	}
	f.Add([]byte(`{"name":"a","cpus":1,"memory_bytes":"1GiB","disks":[{"size_bytes":512}],"labels":{"a":"b"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var v api.VMCreate
		if err := decodeStrict(body, &v); err != nil {
			if errs.CodeOf(err) == errs.Internal {
				t.Errorf("%q: %v", body, err)
			}
			return
		}
		// what is taken strictly is taken the same by the standard decoder
		var w api.VMCreate
		if err := json.Unmarshal(body, &w); err != nil {
			t.Errorf("%q: taken, and refused by encoding/json: %v", body, err)
		}
		if _, err := json.Marshal(v); err != nil {
			t.Errorf("%q: %v", body, err)
		}
	})
}

func FuzzCursor(f *testing.F) {
	p := pages{key: []byte("k")}
	f.Add("")
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := p.open(s, "vms", ""); err == nil {
			t.Errorf("a made-up cursor %q was taken", s)
		}
	})
}

func TestUnknownPathIsAProblem(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	e, status := call[api.Error](r, "GET", "/api/v2/vms", nil)
	if status != http.StatusNotFound || e.Code != "not_found" {
		t.Errorf("%d %+v", status, e)
	}
}
