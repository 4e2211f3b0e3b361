package strictyaml

import (
	"errors"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Mapping is a document of fields and their values, in their order.
type Mapping struct{ root *yaml.Node }

// NewMapping makes one without fields.
func NewMapping() Mapping { return Mapping{&yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}} }

// ReadMapping reads a text that is exactly one document, which is fields and
// their values, or nothing at all.
func ReadMapping(text string, r Rules) (Mapping, error) {
	one, err := readOne(text, r)
	switch {
	case err != nil:
		return Mapping{}, err
	case one == nil:
		return NewMapping(), nil
	case one.Kind != yaml.MappingNode:
		return Mapping{}, refuse(one, errs.InvalidYAML, "fields and their values are expected here, such as 'name: value'")
	}
	return Mapping{one}, nil
}

// CheckList judges a text that is exactly one document, which is a list.
func CheckList(text string, r Rules) error {
	one, err := readOne(text, r)
	if err == nil && (one == nil || one.Kind != yaml.SequenceNode) {
		err = &Error{Code: errs.InvalidYAML, Message: "a list is expected here"}
	}
	return err
}

// readOne gives nil for a text without a document.
func readOne(text string, r Rules) (*yaml.Node, error) {
	docs, err := Parse(text, 1)
	if e, ok := errors.AsType[*Error](err); ok && e.Code == errs.TooLarge {
		e.Code, e.Message = errs.InvalidYAML, "a second document begins here, and only one is taken"
	}
	if err != nil || len(docs) == 0 {
		return nil, err
	}
	return docs[0], Check(docs[0], r)
}

// Fields lists the names of the fields.
func (m Mapping) Fields() []string {
	var out []string
	for i := 0; i+1 < len(m.root.Content); i += 2 {
		out = append(out, m.root.Content[i].Value)
	}
	return out
}

// Text gives the value of a field as it is written, the path leading into
// mappings; false when there is none, or it is no single value.
func (m Mapping) Text(path ...string) (string, bool) {
	n := m.root
	for _, field := range path {
		n = Value(n, field)
	}
	if n == nil || n.Kind != yaml.ScalarNode {
		return "", false
	}
	return n.Value, true
}

// Put adds a field at the end whose value is a text.
func (m Mapping) Put(field, value string) {
	m.root.Content = append(m.root.Content, name(field), text(value))
}

// PutList adds a field at the end that is a list of texts.
func (m Mapping) PutList(field string, values []string) {
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, v := range values {
		list.Content = append(list.Content, text(v))
	}
	m.root.Content = append(m.root.Content, name(field), list)
}

// Join adds the fields of another at the end.
func (m Mapping) Join(o Mapping) Mapping {
	root := *m.root
	root.Content = slices.Concat(m.root.Content, o.root.Content)
	return Mapping{&root}
}

func name(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

// text is quoted whatever it holds: readers of YAML 1.1 take a bare "on" for true.
func text(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: s}
}

// Encode writes the document as YAML. The same document gives the same text.
func (m Mapping) Encode() (string, error) {
	var b strings.Builder
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(m.root); err != nil {
		return "", errs.New(errs.Internal, "a document cannot be written as YAML").Because(err)
	}
	return b.String(), enc.Close()
}
