package output

import (
	"strings"
	"testing"
	"time"
)

type row struct{ Name, State, Note string }

var rowColumns = []Column[row]{
	{Title: "name", Cell: func(r row) string { return r.Name }},
	{Title: "state", State: true, Cell: func(r row) string { return r.State }},
	{Title: "note", Wide: true, Cell: func(r row) string { return r.Note }},
}

var rows = []row{{"web", "running", "a\x1b[2Jb"}, {"database", "stopped", ""}}

func TestList(t *testing.T) {
	cases := map[string]struct {
		p    Printer
		want string
	}{
		"table": {Printer{Format: Table}, "NAME       STATE\nweb        running\ndatabase   stopped\n"},
		"wide":  {Printer{Format: Wide}, "NAME       STATE     NOTE\nweb        running   a\\u001b[2Jb\ndatabase   stopped   -\n"},
		"colour": {
			Printer{Format: Table, Colour: true},
			"NAME       STATE\nweb        \x1b[32mrunning\x1b[0m\ndatabase   \x1b[90mstopped\x1b[0m\n",
		},
		"json": {
			Printer{Format: JSON},
			"{\n  \"items\": [\n    {\n      \"Name\": \"web\",\n      \"State\": \"running\",\n      \"Note\": \"a\\u001b[2Jb\"\n    },\n" +
				"    {\n      \"Name\": \"database\",\n      \"State\": \"stopped\",\n      \"Note\": \"\"\n    }\n  ]\n}\n",
		},
		"yaml": {
			Printer{Format: YAML},
			"items:\n  - Name: web\n    State: running\n    Note: \"a\\e[2Jb\"\n  - Name: database\n    State: stopped\n    Note: \"\"\n",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			tc.p.Out = &b
			if err := List(tc.p, rows, rowColumns); err != nil {
				t.Fatal(err)
			}
			if b.String() != tc.want {
				t.Errorf("got\n%q\nwant\n%q", b.String(), tc.want)
			}
		})
	}
}

func TestEmptyLists(t *testing.T) {
	for f, want := range map[Format]string{Table: "NAME   STATE\n", JSON: "{\n  \"items\": []\n}\n", YAML: "items: []\n"} {
		var b strings.Builder
		if err := List(Printer{Out: &b, Format: f}, nil, rowColumns); err != nil || b.String() != want {
			t.Errorf("%s: got %q, %v", f, b.String(), err)
		}
	}
}

func TestDescribe(t *testing.T) {
	var b strings.Builder
	pairs := []Pair{{"name", "web"}, {"state", "running"}, {"reason", ""}, {"last step", "boot"}}
	if err := (Printer{Out: &b, Format: Table}).Describe(nil, pairs); err != nil {
		t.Fatal(err)
	}
	if want := "name:        web\nstate:       running\nlast step:   boot\n"; b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
}

// What only looks like a number or a truth stays text.
func TestYAMLKeepsTypes(t *testing.T) {
	var b strings.Builder
	doc := struct {
		A string `json:"a"`
		B string `json:"b"`
		C int64  `json:"c"`
		D string `json:"d"`
	}{"1", "true", 1 << 60, "two\nlines"}
	if err := (Printer{Out: &b, Format: YAML}).Document(doc); err != nil {
		t.Fatal(err)
	}
	if want := "a: \"1\"\nb: \"true\"\nc: 1152921504606846976\nd: |-\n  two\n  lines\n"; b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
}

func TestAges(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for ago, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119 * time.Minute: "119m",
		2 * time.Hour: "2h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 800 * 24 * time.Hour: "2y",
	} {
		if got := Age(now, now.Add(-ago)); got != want {
			t.Errorf("%v: got %s, want %s", ago, got, want)
		}
	}
	if got := Age(now, time.Time{}); got != "" {
		t.Errorf("never: got %q", got)
	}
}

func TestCleanAndLabels(t *testing.T) {
	if got := Clean("a\u202eb\n\x00ü"); got != `a\u202eb\u000a\u0000ü` {
		t.Errorf("got %q", got)
	}
	if got := Labels(map[string]string{"b": "2", "a": "1"}); got != "a=1,b=2" {
		t.Errorf("got %q", got)
	}
	if got := Bar(150, 4) + Bar(-1, 4) + Bar(50, 4); got != "[####] 100%[----]   0%[##--]  50%" {
		t.Errorf("got %q", got)
	}
	if f, ok := Parse("xml"); ok {
		t.Errorf("took %s", f)
	}
}

func TestSafe(t *testing.T) {
	var b strings.Builder
	w := &Safe{W: &b}
	for _, piece := range []string{"a\x1b[2J\tb\r\n", "\xc2", "\x9b31m", "\xc2", "\xa3 \u009bx é\x00\x07\x7f"} {
		if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	if want := "a[2J\tb\r\n31m£ x é"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
