package ova

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"

	"github.com/novacron/novacron/internal/vocab/errs"
)

const (
	maxDepth    = 32
	maxElements = 20000
	// maxValue is more than any value that is read has, in bytes.
	maxValue = 4096
)

// element is one of a description, by its name in whatever namespace.
type element struct {
	name  string
	attrs map[string]string
	text  string
	kids  []*element
}

// all gives what lies at a path below an element.
func (e *element) all(path ...string) []*element {
	found := []*element{e}
	for _, name := range path {
		var next []*element
		for _, f := range found {
			for _, k := range f.kids {
				if k.name == name {
					next = append(next, k)
				}
			}
		}
		found = next
	}
	return found
}

// says gives the text of the first that lies at a path.
func (e *element) says(path ...string) string {
	if found := e.all(path...); len(found) > 0 {
		return strings.TrimSpace(found[0].text)
	}
	return ""
}

// has gives an attribute of the first that lies at a path.
func (e *element) has(attr string, path ...string) string {
	if found := e.all(path...); len(found) > 0 {
		return strings.TrimSpace(found[0].attrs[attr])
	}
	return ""
}

// tree reads a description, strictly and within bounds.
func tree(name string, text []byte) (*element, error) {
	d := xml.NewDecoder(bytes.NewReader(text))
	d.CharsetReader = func(charset string, _ io.Reader) (io.Reader, error) {
		return nil, errors.New("its characters are " + errs.Clip(charset) + ", not UTF-8")
	}
	root := &element{}
	open, elements := []*element{root}, 0
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return root, nil
		}
		if err != nil {
			return nil, unsafeEntry(name, "is no XML: "+errs.Clip(err.Error()))
		}
		if open, err = take(open, t); err != nil {
			return nil, unsafeEntry(name, err.Error())
		}
		if elements++; len(open) > maxDepth || elements > 4*maxElements {
			return nil, unsafeEntry(name, "is nested too deep, or has too many elements")
		}
	}
}

// take puts a token where it belongs below what is open.
func take(open []*element, t xml.Token) ([]*element, error) {
	last := open[len(open)-1]
	switch t := t.(type) {
	case xml.Directive:
		return nil, errors.New("has a document type, which no description needs")
	case xml.StartElement:
		e := &element{name: t.Name.Local, attrs: map[string]string{}}
		for _, a := range t.Attr {
			e.attrs[a.Name.Local] = a.Value
		}
		last.kids = append(last.kids, e)
		return append(open, e), nil
	case xml.EndElement:
		return open[:len(open)-1], nil
	case xml.CharData:
		if len(last.text) < maxValue {
			last.text += string(t)
		}
	}
	return open, nil
}
