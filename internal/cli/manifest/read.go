package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/strictyaml"
)

// Bounds of what is read.
const (
	maxFile      = 8 << 20
	maxDocuments = 10000
)

var rules = strictyaml.Rules{MaxScalar: 64 << 10, MaxDepth: 32}

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

// File is where the document was read: a path, or what stands for standard input.
func (d Document) File() string { return d.file }

// Stdin stands for standard input where a file is named.
const Stdin = "standard input"

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
	roots, err := strictyaml.Parse(string(text), maxDocuments)
	if err != nil {
		return nil, inFile(file, err)
	}
	var out []Document
	for _, root := range roots {
		found, err := documents(file, root)
		if err != nil {
			return nil, err
		}
		if out = append(out, found...); len(out) > maxDocuments {
			return nil, errs.New(errs.TooLarge, "%s has more than %d documents", file, maxDocuments)
		}
	}
	return out, nil
}

// inFile makes what is wrong with a text an error about a file.
func inFile(file string, err error) error {
	e, ok := errors.AsType[*strictyaml.Error](err)
	switch {
	case !ok:
		return err
	case e.Line == 0:
		return errs.New(e.Code, "%s is not YAML: %s", file, e.Message)
	default:
		return errs.New(e.Code, "%s: %s", place(file, e.Line), e.Message)
	}
}

// documents takes a document, or the items of a list.
func documents(file string, n *yaml.Node) ([]Document, error) {
	items := []*yaml.Node{n}
	if list := strictyaml.Value(n, "items"); list != nil && strictyaml.Value(n, "kind") == nil && list.Kind == yaml.SequenceNode {
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

func document(file string, n *yaml.Node) (Document, error) {
	d := Document{file: file, line: n.Line, lines: map[string]int{}}
	w := &writer{doc: &d}
	if n.Kind != yaml.MappingNode {
		return d, w.refuse(n, "a document is fields and their values, such as 'kind: vm'")
	}
	if err := strictyaml.Check(n, rules); err != nil {
		return d, inFile(file, err)
	}
	if err := w.node(n, ""); err != nil {
		return d, err
	}
	d.JSON = json.RawMessage(w.out.String())
	for field, into := range map[string]*string{"kind": &d.Kind, "name": &d.Name, "id": &d.ID} {
		if v := strictyaml.Value(n, field); v != nil && v.ShortTag() == "!!str" {
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
	return errs.New(errs.InvalidYAML, "%s: %s", place(w.doc.file, n.Line), fmt.Sprintf(format, args...))
}

// node writes what Check has let pass.
func (w *writer) node(n *yaml.Node, at string) error {
	if _, known := w.doc.lines[at]; !known {
		w.doc.lines[at] = n.Line
	}
	switch n.Kind {
	case yaml.MappingNode:
		return w.mapping(n, at)
	case yaml.SequenceNode:
		return w.sequence(n, at)
	default:
		return w.scalar(n)
	}
}

func (w *writer) mapping(n *yaml.Node, at string) error {
	w.out.WriteByte('{')
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if i > 0 {
			w.out.WriteByte(',')
		}
		w.text(k.Value)
		w.out.WriteByte(':')
		here := at + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(errs.Clip(k.Value))
		w.doc.lines[here] = k.Line
		if err := w.node(n.Content[i+1], here); err != nil {
			return err
		}
	}
	w.out.WriteByte('}')
	return nil
}

func (w *writer) sequence(n *yaml.Node, at string) error {
	w.out.WriteByte('[')
	for i, c := range n.Content {
		if i > 0 {
			w.out.WriteByte(',')
		}
		if err := w.node(c, at+"/"+strconv.Itoa(i)); err != nil {
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
