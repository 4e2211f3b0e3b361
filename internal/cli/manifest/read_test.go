package manifest

import (
	"bufio"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// badCase is one line of the corpus: what is written, and what it gets.
type badCase struct {
	Name string `json:"name"`
	// Text is the file; {{N:x}} stands for x, N times over.
	Text string `json:"text"`
	// Code is empty for what is taken.
	Code string `json:"code"`
	// Line is where the error points; 0 for no line of its own.
	Line int `json:"line"`
}

func cases(t testing.TB) (out []badCase) {
	t.Helper()
	f, err := os.Open("../../../testdata/badinput/yaml/documents.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var c badCase
		if err := json.Unmarshal(sc.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		for a := strings.Index(c.Text, "{{"); a >= 0; a = strings.Index(c.Text, "{{") {
			b := a + strings.Index(c.Text[a:], "}}")
			count, what, _ := strings.Cut(c.Text[a+2:b], ":")
			n, err := strconv.Atoi(count)
			if err != nil {
				t.Fatalf("%s: %v", c.Name, err)
			}
			c.Text = c.Text[:a] + strings.Repeat(what, n) + c.Text[b+2:]
		}
		out = append(out, c)
	}
	return out
}

func TestBadInput(t *testing.T) {
	for _, c := range cases(t) {
		docs, err := Read("f.yaml", strings.NewReader(c.Text))
		if got := string(errs.CodeOf(err)); got != c.Code {
			t.Errorf("%s: %v, want %s (%d documents)", c.Name, err, c.Code, len(docs))
			continue
		}
		if at := "f.yaml:" + strconv.Itoa(c.Line) + ": "; c.Line > 0 && !strings.HasPrefix(errs.As(err).Message, at) {
			t.Errorf("%s: %v, want it at %s", c.Name, err, at)
		}
	}
}

func TestRead(t *testing.T) {
	docs, err := Read("f", strings.NewReader(`# nothing but a comment
---
kind: vm
name: a
created_at: 2026-01-02T03:04:05Z
labels: {on: "on", n: "1", tilde~: "/"}
spec:
  power: off
  cpus: 0x10
  memory_bytes: 1_024
  disks:
    - size_bytes: !!str 10
      slot: ~
  f: 1.0
---
---
{"items": [{"kind": "vm", "name": "b", "id": "x", "spec": {"on": true}},
 {"kind": "node", "name": "c"}]}
`))
	if err != nil || len(docs) != 3 {
		t.Fatalf("%d documents: %v", len(docs), err)
	}
	want := `{"kind":"vm","name":"a","created_at":"2026-01-02T03:04:05Z","labels":{"on":"on","n":"1","tilde~":"/"},` +
		`"spec":{"power":"off","cpus":16,"memory_bytes":1024,"disks":[{"size_bytes":"10","slot":null}],"f":1}}`
	if got := string(docs[0].JSON); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if d := docs[1]; d.Kind != "vm" || d.Name != "b" || d.ID != "x" || docs[2].Kind != "node" {
		t.Errorf("%+v", docs)
	}
	for pointer, want := range map[string]string{
		"": "f:3", "/kind": "f:3", "/spec/cpus": "f:9", "/spec/disks/0/slot": "f:13", "/spec/disks/0/nothing": "f:12", "/spec/nothing": "f:7",
		"/labels/tilde~0": "f:6", "nonsense": "f:3",
	} {
		if got := docs[0].Place(pointer); got != want {
			t.Errorf("%s is at %s, want %s", pointer, got, want)
		}
	}
	d := Document{JSON: json.RawMessage(`{"kind":"vm","revision":4}`)}
	if d, err = d.WithoutRevision(); err != nil || string(d.JSON) != `{"kind":"vm"}` {
		t.Errorf("%s %v", d.JSON, err)
	}
}

func TestDiff(t *testing.T) {
	many := func(s string) string { return strings.Repeat(s, 10) }
	for _, c := range []struct{ before, after, want string }{
		{"a\n", "a\n", ""},
		{"", "a\nb\n", "--- x\n+++ y\n@@ -0,0 +1,2 @@\n+a\n+b\n"},
		{"a\n", "", "--- x\n+++ y\n@@ -1 +0,0 @@\n-a\n"},
		{"a\nb\nc\n", "a\nB\nc\n", "--- x\n+++ y\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"},
		{
			many("=\n") + "a\n" + many("=\n") + "b\n", many("=\n") + "A\n" + many("=\n") + "B\n",
			"--- x\n+++ y\n@@ -8,7 +8,7 @@\n =\n =\n =\n-a\n+A\n =\n =\n =\n@@ -19,4 +19,4 @@\n =\n =\n =\n-b\n+B\n",
		},
		{"a\n1\n2\n3\n4\n5\n6\nb\n", "A\n1\n2\n3\n4\n5\n6\nB\n", "--- x\n+++ y\n@@ -1,8 +1,8 @@\n-a\n+A\n 1\n 2\n 3\n 4\n 5\n 6\n-b\n+B\n"},
	} {
		if got := Diff("x", "y", c.before, c.after); got != c.want {
			t.Errorf("%q and %q:\n%swant\n%s", c.before, c.after, got, c.want)
		}
	}
}

// Whatever is written, it is taken or refused; what is taken is one JSON object.
func FuzzRead(f *testing.F) {
	for _, c := range cases(f) {
		if len(c.Text) < 4096 {
			f.Add(c.Text)
		}
	}
	f.Add("kind: vm\nname: a\nspec: {disks: [{size_bytes: 1GiB}]}\n---\n{\"items\": []}\n")
	f.Fuzz(func(t *testing.T, text string) {
		docs, err := Read("f", strings.NewReader(text))
		if code := errs.CodeOf(err); err != nil && code != errs.InvalidYAML && code != errs.TooLarge {
			t.Errorf("%q: %v", text, err)
		}
		for _, d := range docs {
			var v map[string]any
			if err := json.Unmarshal(d.JSON, &v); err != nil || v["kind"] != d.Kind || v["name"] != d.Name {
				t.Errorf("%q: %s: %v", text, d.JSON, err)
			}
		}
	})
}
