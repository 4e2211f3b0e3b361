package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Bounds of what is read.
const (
	maxFile      = 8 << 20
	maxScalar    = 64 << 10
	maxDepth     = 32
	maxDocuments = 10000
)

// Document is one declared object, as JSON for the server and with the way back
// to where it was written.
type Document struct {
	Kind, Name string
	ID         string
	JSON       json.RawMessage

	file  string
	line  int
	lines map[string]int
}

// Place tells where a JSON pointer into the document was written: the file and
// the line of the nearest part there is.
func (d Document) Place(pointer string) string {
	for p := pointer; p != ""; p = p[:strings.LastIndexByte(p, '/')] {
		if n, ok := d.lines[p]; ok {
			return place(d.file, n)
		}
		if !strings.HasPrefix(p, "/") {
			break
		}
	}
	return place(d.file, d.line)
}

func place(file string, line int) string { return file + ":" + strconv.Itoa(line) }

// WithoutRevision gives the document as one that does not say what state of the
// object it was made of.
func (d Document) WithoutRevision() (Document, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(d.JSON, &fields); err != nil {
		return d, fmt.Errorf("read the document again: %w", err)
	}
	delete(fields, "revision")
	b, err := json.Marshal(fields)
	d.JSON = b
	return d, err
}

// Read reads the documents of one file: YAML, several parted by "---", or JSON,
// of which YAML is a superset. A list document, {"items": [...]}, is its items.
// The name of the file is for messages.
func Read(file string, r io.Reader) ([]Document, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, errs.New(errs.InvalidYAML, "%s cannot be read", file).Because(err)
	}
	if len(text) > maxFile {
		return nil, errs.New(errs.TooLarge, "%s is larger than %d bytes", file, maxFile)
	}
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	var out []Document
	for {
		var root yaml.Node
		if err := dec.Decode(&root); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, errs.New(errs.InvalidYAML, "%s is not YAML: %s", file, errs.Clip(strings.TrimPrefix(err.Error(), "yaml: ")))
		}
		if len(root.Content) != 1 || root.Content[0].ShortTag() == "!!null" {
			continue // nothing but comments
		}
		found, err := documents(file, root.Content[0])
		if err != nil {
			return nil, err
		}
		if out = append(out, found...); len(out) > maxDocuments {
			return nil, errs.New(errs.TooLarge, "%s has more than %d documents", file, maxDocuments)
		}
	}
}

// documents takes a document, or the items of a list.
func documents(file string, n *yaml.Node) ([]Document, error) {
	items := []*yaml.Node{n}
	if list := value(n, "items"); list != nil && value(n, "kind") == nil && list.Kind == yaml.SequenceNode {
		items = list.Content
	}
	out := make([]Document, 0, len(items))
	for _, item := range items {
		d, err := document(file, item)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func value(n *yaml.Node, key string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func document(file string, n *yaml.Node) (Document, error) {
	d := Document{file: file, line: n.Line, lines: map[string]int{}}
	w := &writer{doc: &d}
	if n.Kind != yaml.MappingNode {
		return d, w.refuse(n, "a document is fields and their values, such as 'kind: vm'")
	}
	if err := w.node(n, "", 0); err != nil {
		return d, err
	}
	d.JSON = json.RawMessage(w.out.String())
	for field, into := range map[string]*string{"kind": &d.Kind, "name": &d.Name, "id": &d.ID} {
		if v := value(n, field); v != nil && v.ShortTag() == "!!str" {
			*into = v.Value
		}
	}
	switch {
	case d.Kind == "":
		return d, w.refuse(n, "the document has no kind, such as 'kind: vm'")
	case d.Name == "":
		return d, w.refuse(n, "the document has no name")
	}
	return d, nil
}

// writer makes JSON of YAML nodes and notes where each came from.
type writer struct {
	doc *Document
	out strings.Builder
}

func (w *writer) refuse(n *yaml.Node, format string, args ...any) error {
	return w.refuseAs(errs.InvalidYAML, n, format, args...)
}

func (w *writer) refuseAs(code errs.Code, n *yaml.Node, format string, args ...any) error {
	return errs.New(code, "%s: %s", place(w.doc.file, n.Line), fmt.Sprintf(format, args...))
}

// coreTags are what a value may be tagged as by hand.
var coreTags = []string{"!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq"}

func (w *writer) node(n *yaml.Node, at string, depth int) error {
	if depth > maxDepth {
		return w.refuse(n, "the document is nested deeper than %d", maxDepth)
	}
	if n.Style&yaml.TaggedStyle != 0 && !slices.Contains(coreTags, n.ShortTag()) {
		return w.refuse(n, "the tag %q is not taken", errs.Clip(n.Tag))
	}
	if _, known := w.doc.lines[at]; !known {
		w.doc.lines[at] = n.Line
	}
	switch n.Kind {
	case yaml.MappingNode:
		return w.mapping(n, at, depth)
	case yaml.SequenceNode:
		return w.sequence(n, at, depth)
	case yaml.ScalarNode:
		return w.scalar(n)
	case yaml.AliasNode:
		return w.refuse(n, "aliases are not taken: write out what *%s stands for", errs.Clip(n.Value))
	default:
		return w.refuse(n, "this cannot be read")
	}
}

func (w *writer) mapping(n *yaml.Node, at string, depth int) error {
	seen := map[string]int{}
	w.out.WriteByte('{')
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" {
			return w.refuse(k, "the name of a field is text; put %q in quotes", errs.Clip(k.Value))
		}
		if len(k.Value) > maxScalar {
			return w.refuseAs(errs.TooLarge, k, "the name of a field is longer than %d bytes", maxScalar)
		}
		if line, twice := seen[k.Value]; twice {
			return w.refuse(k, "the field %q stands twice, first in line %d", errs.Clip(k.Value), line)
		}
		seen[k.Value] = k.Line
		if i > 0 {
			w.out.WriteByte(',')
		}
		w.text(k.Value)
		w.out.WriteByte(':')
		here := at + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(errs.Clip(k.Value))
		w.doc.lines[here] = k.Line
		if err := w.node(n.Content[i+1], here, depth+1); err != nil {
			return err
		}
	}
	w.out.WriteByte('}')
	return nil
}

func (w *writer) sequence(n *yaml.Node, at string, depth int) error {
	w.out.WriteByte('[')
	for i, c := range n.Content {
		if i > 0 {
			w.out.WriteByte(',')
		}
		if err := w.node(c, at+"/"+strconv.Itoa(i), depth+1); err != nil {
			return err
		}
	}
	w.out.WriteByte(']')
	return nil
}

func (w *writer) text(s string) {
	b, _ := json.Marshal(s) //nolint:errchkjson // every string has a JSON form
	w.out.Write(b)
}

func (w *writer) scalar(n *yaml.Node) error {
	if len(n.Value) > maxScalar {
		return w.refuseAs(errs.TooLarge, n, "the value is longer than %d bytes", maxScalar)
	}
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
		w.text(n.Value)
	case "!!null":
		w.out.WriteString("null")
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err != nil {
			return w.refuse(n, "%q is not true or false", errs.Clip(n.Value))
		}
		w.out.WriteString(strconv.FormatBool(b))
	case "!!int":
		var i int64
		if err := n.Decode(&i); err != nil {
			return w.refuse(n, "the number %s is out of range", errs.Clip(n.Value))
		}
		w.out.WriteString(strconv.FormatInt(i, 10))
	case "!!float":
		var f float64
		if err := n.Decode(&f); err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return w.refuse(n, "%s is not a number", errs.Clip(n.Value))
		}
		b, _ := json.Marshal(f) //nolint:errchkjson // infinities and NaN, which have no JSON form, were refused above
		w.out.Write(b)
	default:
		return w.refuse(n, "a value of the type %q is not taken", errs.Clip(n.ShortTag()))
	}
	return nil
}
