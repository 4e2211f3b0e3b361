package server

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
	// {{N:x}} stands for x, N times over, {{x:ff}} for bytes in hexadecimal digits.
	Body   string `json:"body"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	Field  string `json:"field"`
}

const corpus = "../../testdata/badinput"

// own are the files of the corpus that have a runner of their own.
var own = []string{"http.jsonl", "websocket.jsonl", "node.jsonl"}

// cases are the requests that any client could make.
func cases(t testing.TB) (out []badCase) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(corpus, "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	for _, path := range files {
		if slices.Contains(own, filepath.Base(path)) {
			continue
		}
		for _, c := range lineByLine[badCase](t, path) {
			c.Body, c.Path = expand(c.Body), expand(c.Path)
			out = append(out, c)
		}
	}
	return out
}

// lineByLine reads a file of the corpus. A field that its cases do not have fails
// the test: it would be a check that is not made.
func lineByLine[T any](t testing.TB, path string) (out []T) {
	t.Helper()
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
		dec := json.NewDecoder(strings.NewReader(sc.Text()))
		dec.DisallowUnknownFields()
		var c T
		if err := dec.Decode(&c); err != nil {
			t.Fatalf("%s:%d: %v", path, line, err)
		}
		out = append(out, c)
	}
	if err := sc.Err(); err != nil || len(out) == 0 {
		t.Fatalf("%s: %d cases: %v", path, len(out), err)
	}
	return out
}

var macro = regexp.MustCompile(`(?s)\{\{(x|\d+):(.*?)\}\}`)

// expand writes out {{N:x}} and {{x:ff}}.
func expand(s string) string {
	return macro.ReplaceAllStringFunc(s, func(m string) string {
		count, what, _ := strings.Cut(m[2:len(m)-2], ":")
		if count == "x" {
			b, _ := hex.DecodeString(what)
			return string(b)
		}
		n, _ := strconv.Atoi(count)
		return strings.Repeat(what, n)
	})
}

// Bad input gets its exact code, changes nothing and leaves nothing.
func TestBadInput(t *testing.T) {
	db := storetest.New(t)
	r := start(t, db, t.TempDir())
	r.image("tiny")
	before := written(t, db)
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
	if diff := cmp.Diff(before, written(t, db)); diff != "" {
		t.Errorf("rows before and after:\n%s", diff)
	}
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
