// Package strictyaml reads YAML that strangers wrote, as data and nothing more:
// no aliases, so that a few lines cannot stand for gigabytes; no tags of one's
// own, so that nobody's loader makes objects of them; no field twice, so that two
// readers cannot see two documents; and bounds on all that can be long or deep.
//
// Parse cuts a text into documents, Check judges one of them. Both tell the line.
package strictyaml

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Rules are what a document is held to. A bound of 0 refuses everything.
type Rules struct {
	// MaxScalar bounds one value, or the name of a field, in bytes.
	MaxScalar int
	// MaxDepth is how deep lists and fields may be nested.
	MaxDepth int
	// Tags are what values may be tagged as by hand, besides YAML's own for text,
	// numbers, truth, nothing, lists and fields; such as "!!binary".
	Tags []string
}

// Error is why a text is not taken: errs.InvalidYAML or errs.TooLarge.
type Error struct {
	Code errs.Code
	// Line is where, counted from 1; 0 when the message says it.
	Line    int
	Message string
}

// Error gives line and message.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return "line " + strconv.Itoa(e.Line) + ": " + e.Message
}

// Parse gives the root of each document of a text; documents that hold nothing
// but comments are left out. It reads no more than most documents.
func Parse(text string, most int) ([]*yaml.Node, error) {
	dec := yaml.NewDecoder(strings.NewReader(text))
	var out []*yaml.Node
	for {
		var root yaml.Node
		if err := dec.Decode(&root); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, &Error{Code: errs.InvalidYAML, Message: errs.Clip(strings.TrimPrefix(err.Error(), "yaml: "))}
		}
		if len(root.Content) != 1 || root.Content[0].ShortTag() == "!!null" {
			continue
		}
		if out = append(out, root.Content[0]); len(out) > most {
			return nil, &Error{Code: errs.TooLarge, Line: root.Content[0].Line, Message: fmt.Sprintf("there are more than %d documents", most)}
		}
	}
}

// coreTags are what a value may be tagged as by hand.
var coreTags = []string{"!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq"}

// Check judges a document; the error is an *Error about the first part that is
// not taken.
func Check(n *yaml.Node, r Rules) error { return r.node(n, 0) }

func refuse(n *yaml.Node, code errs.Code, format string, args ...any) error {
	return &Error{Code: code, Line: n.Line, Message: fmt.Sprintf(format, args...)}
}

func (r Rules) node(n *yaml.Node, depth int) error {
	if depth > r.MaxDepth {
		return refuse(n, errs.InvalidYAML, "the document is nested deeper than %d", r.MaxDepth)
	}
	if tag := n.ShortTag(); n.Style&yaml.TaggedStyle != 0 && !slices.Contains(coreTags, tag) && !slices.Contains(r.Tags, tag) {
		return refuse(n, errs.InvalidYAML, "the tag %q is not taken", errs.Clip(n.Tag))
	}
	switch n.Kind {
	case yaml.MappingNode:
		return r.mapping(n, depth)
	case yaml.SequenceNode:
		for _, c := range n.Content {
			if err := r.node(c, depth+1); err != nil {
				return err
			}
		}
		return nil
	case yaml.ScalarNode:
		if len(n.Value) > r.MaxScalar {
			return refuse(n, errs.TooLarge, "the value is longer than %d bytes", r.MaxScalar)
		}
		return nil
	case yaml.AliasNode:
		return refuse(n, errs.InvalidYAML, "aliases are not taken: write out what *%s stands for", errs.Clip(n.Value))
	default:
		return refuse(n, errs.InvalidYAML, "this cannot be read")
	}
}

func (r Rules) mapping(n *yaml.Node, depth int) error {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" {
			return refuse(k, errs.InvalidYAML, "the name of a field is text; put %q in quotes", errs.Clip(k.Value))
		}
		if len(k.Value) > r.MaxScalar {
			return refuse(k, errs.TooLarge, "the name of a field is longer than %d bytes", r.MaxScalar)
		}
		if line, twice := seen[k.Value]; twice {
			return refuse(k, errs.InvalidYAML, "the field %q stands twice, first in line %d", errs.Clip(k.Value), line)
		}
		seen[k.Value] = k.Line
		if err := r.node(n.Content[i+1], depth+1); err != nil {
			return err
		}
	}
	return nil
}

// Value finds the value of a field; nil when there is none, or n has no fields.
func Value(n *yaml.Node, field string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == field {
			return n.Content[i+1]
		}
	}
	return nil
}
