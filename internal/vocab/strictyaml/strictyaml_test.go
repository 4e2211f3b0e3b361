package strictyaml

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/novacron/novacron/internal/vocab/errs"
)

var rules = Rules{MaxScalar: 100, MaxDepth: 5, Tags: []string{"!!binary"}}

func TestReadMapping(t *testing.T) {
	m, err := ReadMapping("# a comment\nb: 1\na: {version: 2, x: [1, 2]}\nc: !!binary aGk=\n", rules)
	if err != nil || !slices.Equal(m.Fields(), []string{"b", "a", "c"}) {
		t.Fatalf("%v, %v", m.Fields(), err)
	}
	for want, path := range map[string][]string{"1": {"b"}, "2": {"a", "version"}, "": {"a"}, "aGk=": {"c"}} {
		if got, ok := m.Text(path...); got != want || ok != (want != "") {
			t.Errorf("%v is %q, %v", path, got, ok)
		}
	}
	if got, ok := m.Text("b", "a"); ok {
		t.Errorf("below a value there is %q", got)
	}
	if m, err := ReadMapping("", rules); err != nil || len(m.Fields()) != 0 {
		t.Errorf("nothing: %v, %v", m.Fields(), err)
	}
}

func TestRefuses(t *testing.T) {
	for what, c := range map[string]struct {
		text string
		code errs.Code
		line int
	}{
		"an alias":        {"a: &x 1\nb: *x\n", errs.InvalidYAML, 2},
		"a merge":         {"a: 1\n<<: {b: 1}\n", errs.InvalidYAML, 2},
		"a tag":           {"a: !secret b\n", errs.InvalidYAML, 1},
		"python's tag":    {"a: !!python/object:os.system b\n", errs.InvalidYAML, 1},
		"a field twice":   {"a: 1\nb: 2\na: 3\n", errs.InvalidYAML, 3},
		"a number's name": {"1: a\n", errs.InvalidYAML, 1},
		"a list's name":   {"[a]: b\n", errs.InvalidYAML, 1},
		"two documents":   {"a: 1\n---\nb: 1\n", errs.InvalidYAML, 3},
		"a list":          {"- a\n", errs.InvalidYAML, 1},
		"text":            {"hello\n", errs.InvalidYAML, 1},
		"too deep":        {"a: {a: {a: {a: {a: {a: 1}}}}}\n", errs.InvalidYAML, 1},
		"a huge value":    {"a: " + strings.Repeat("x", 101) + "\n", errs.TooLarge, 1},
		"a huge name":     {strings.Repeat("x", 101) + ": a\n", errs.TooLarge, 1},
		"a huge tag":      {"a: !!binary " + strings.Repeat("x", 101) + "\n", errs.TooLarge, 1},
		"no YAML":         {"a: [\n", errs.InvalidYAML, 0},
	} {
		_, err := ReadMapping(c.text, rules)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Code != c.code || e.Line != c.line {
			t.Errorf("%s: %v", what, err)
		}
	}
	for text, ok := range map[string]bool{"- a\n- b\n": true, "": false, "a: b\n": false, "- *a\n": false} {
		if err := CheckList(text, rules); (err == nil) != ok {
			t.Errorf("%q as a list: %v", text, err)
		}
	}
}

// What is written reads as it was meant, by readers of YAML 1.1 too: a text is
// quoted whatever it looks like.
func TestEncode(t *testing.T) {
	m := NewMapping()
	hard := []string{"on", "no", "1e3", "~", "", "0o17", "a: b # c", "'\"\\", "two\nlines", "é\u2028", "- x", "1_000"}
	m.Put("a", "yes")
	m.PutList("list", hard)
	further, err := ReadMapping("z: on\nb: {c: [1, 0x10]}\n", rules)
	if err != nil {
		t.Fatal(err)
	}
	text, err := m.Join(further).Encode()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		A    string
		List []string
		Z    string
		B    map[string][]int
	}
	if err := yaml.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if got.A != "yes" || !slices.Equal(got.List, hard) || got.Z != "on" || !slices.Equal(got.B["c"], []int{1, 16}) {
		t.Errorf("%+v of\n%s", got, text)
	}
	for _, line := range strings.Split(text, "\n")[:len(hard)+2] {
		if _, value, ok := strings.Cut(line, " "); ok && strings.TrimSpace(value) != "" && !strings.HasSuffix(line, `"`) {
			t.Errorf("not quoted: %s", line)
		}
	}
	if len(m.Fields()) != 2 {
		t.Errorf("joining changed %v", m.Fields())
	}
}
