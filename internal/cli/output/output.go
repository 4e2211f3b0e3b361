// Package output prints what the command line shows: tables for people, JSON
// and YAML for programs. A colour never says anything that the word it colours
// does not, and appears on terminals only.
package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"go.yaml.in/yaml/v3"
)

// Format is how a document is printed.
type Format string

// The formats.
const (
	Table Format = "table"
	Wide  Format = "wide"
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// Formats lists them for help and completion.
var Formats = []string{string(Table), string(Wide), string(JSON), string(YAML)}

// Parse reads the name of a format.
func Parse(s string) (Format, bool) {
	return Format(s), slices.Contains(Formats, s)
}

// ForPrograms tells whether a program reads the output.
func (f Format) ForPrograms() bool { return f == JSON || f == YAML }

// Printer prints in one format to one place.
type Printer struct {
	Out    io.Writer
	Format Format
	// Colour is for terminals.
	Colour bool
}

// Column is one column of a table of T.
type Column[T any] struct {
	Title string
	// Wide columns show with -o wide alone.
	Wide bool
	Cell func(T) string
	// State columns take the colour of the state they show.
	State bool
}

// List prints items as rows, or as the list document of the API.
func List[T any](p Printer, items []T, columns []Column[T]) error {
	if p.Format.ForPrograms() {
		if items == nil {
			items = []T{}
		}
		return p.Document(map[string]any{"items": items})
	}
	t := newTable()
	var head table.Row
	var shown []Column[T]
	for _, c := range columns {
		if c.Wide && p.Format != Wide {
			continue
		}
		shown = append(shown, c)
		head = append(head, c.Title)
	}
	t.AppendHeader(head)
	for _, item := range items {
		var row table.Row
		for _, c := range shown {
			cell := Clean(c.Cell(item))
			if cell == "" {
				cell = "-"
			}
			if c.State {
				cell = p.State(cell)
			}
			row = append(row, cell)
		}
		t.AppendRow(row)
	}
	return render(p.Out, t)
}

// Pair is one line of a description.
type Pair struct{ Key, Value string }

// Describe prints one object as lines of key and value, or as its document.
func (p Printer) Describe(doc any, pairs []Pair) error {
	if p.Format.ForPrograms() {
		return p.Document(doc)
	}
	t := newTable()
	for _, pair := range pairs {
		if pair.Value == "" {
			continue
		}
		value := Clean(pair.Value)
		if pair.Key == "state" {
			value = p.State(value)
		}
		key := pair.Key
		if key != "" && !strings.HasPrefix(key, " ") {
			key += ":"
		}
		t.AppendRow(table.Row{key, value})
	}
	return render(p.Out, t)
}

// Document prints a document as JSON or YAML, with the names of the API.
func (p Printer) Document(doc any) error {
	raw, err := p.Format.Text(doc)
	if err != nil {
		return err
	}
	_, err = p.Out.Write(raw)
	return err
}

// Text is a document as JSON or YAML, with the names of the API. It ends with a
// line break.
func (f Format) Text(doc any) ([]byte, error) {
	raw, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write as JSON: %w", err)
	}
	if f == YAML {
		if raw, err = toYAML(raw); err != nil {
			return nil, err
		}
	}
	return append(bytes.TrimRight(raw, "\n"), '\n'), nil
}

// toYAML goes by way of JSON, of which YAML is a superset: the names and their
// order stay those of the API.
func toYAML(raw []byte) ([]byte, error) {
	var node yaml.Node
	if err := yaml.Unmarshal(raw, &node); err != nil {
		return nil, fmt.Errorf("write as YAML: %w", err)
	}
	unfold(&node)
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&node); err != nil {
		return nil, fmt.Errorf("write as YAML: %w", err)
	}
	return b.Bytes(), nil
}

// unfold turns JSON's braces and quotes into YAML's own style. Strings keep their
// tag, so that what only looks like a number is quoted again.
func unfold(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		unfold(c)
	}
}

func newTable() table.Writer {
	t := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft = ""
	style.Box.PaddingRight = "   "
	style.Format.Header = text.FormatUpper
	t.SetStyle(style)
	return t
}

// render trims the padding that the last column leaves behind.
func render(w io.Writer, t table.Writer) error {
	var b strings.Builder
	for line := range strings.Lines(t.Render()) {
		b.WriteString(strings.TrimRight(line, " \n"))
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Clean escapes what would move a terminal's cursor or hide text: labels and
// reasons come from people and hosts.
func Clean(s string) string {
	if strings.IndexFunc(s, unsafeRune) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unsafeRune(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unsafeRune(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Co) || r == unicode.ReplacementChar
}
