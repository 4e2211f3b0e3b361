package server

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/near"
)

// Bounds of a JSON body (security baseline).
const (
	maxBody  = 1 << 20
	maxDepth = 32
)

// readOnly are fields of documents that no request may set. A client that sends
// one means something we will not do, and must not be told "unknown".
var readOnly = map[string]bool{
	"kind": true, "id": true, "project": true, "revision": true, "created_at": true, "updated_at": true,
	"spec": true, "status": true, "role": true, "node": true, "owner_epoch": true, "state": true, "power": true,
}

// decodeStrict reads exactly one JSON document into v, a pointer to a struct:
// no duplicate, unknown or wrong-case key, no trailing data, bounded depth,
// valid UTF-8, no null where a value is needed. Errors carry a JSON pointer.
func decodeStrict(body []byte, v any) error {
	if len(body) > maxBody {
		return errs.New(errs.TooLarge, "the body is larger than %d bytes", maxBody)
	}
	if !utf8.Valid(body) {
		return errs.New(errs.InvalidJSON, "the body is not valid UTF-8")
	}
	if at := halfPair(body); at >= 0 {
		return errs.New(errs.InvalidJSON, "the escape at offset %d is half of a pair: it stands for no character", at)
	}
	d := &checker{dec: json.NewDecoder(bytes.NewReader(body))}
	d.dec.UseNumber()
	if err := d.value(reflect.TypeOf(v).Elem(), "", 0); err != nil {
		return err
	}
	if _, err := d.dec.Token(); !errors.Is(err, io.EOF) {
		return errs.New(errs.InvalidJSON, "there is more after the document, at offset %d", d.dec.InputOffset())
	}
	if err := json.Unmarshal(body, v); err != nil {
		return misfit(err)
	}
	return nil
}

// escapes are backslashes with what belongs to them. Outside of text there are none
// in what is JSON.
var escapes = regexp.MustCompile(`(?i)\\(u[0-9a-f]{4}|[^u])`)

// halfPair finds an escape of a UTF-16 surrogate without its other half, which the
// decoder would put another character for; -1 when there is none.
func halfPair(body []byte) int {
	if !bytes.Contains(body, []byte(`\u`)) {
		return -1
	}
	high := -1 // where a first half stands that waits for its second
	for _, at := range escapes.FindAllIndex(body, -1) {
		half := halfOf(body[at[0]:at[1]])
		switch {
		case high >= 0 && (half != secondHalf || at[0] != high+6):
			return high
		case high < 0 && half == secondHalf:
			return at[0]
		}
		high = -1
		if half == firstHalf {
			high = at[0]
		}
	}
	return high
}

const (
	firstHalf = iota + 1
	secondHalf
)

// halfOf tells which half of a pair an escape is; 0 for none.
func halfOf(escape []byte) int {
	r, err := strconv.ParseUint(string(escape[2:]), 16, 16)
	switch {
	case err != nil || len(escape) != 6:
		return 0
	case r >= 0xD800 && r <= 0xDBFF:
		return firstHalf
	case r >= 0xDC00 && r <= 0xDFFF:
		return secondHalf
	}
	return 0
}

// misfit words what the types refuse.
func misfit(err error) error {
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		at := "/" + strings.ReplaceAll(t.Field, ".", "/")
		return errs.New(errs.InvalidField, "%s must be %s, not %s", at, words(t.Type), t.Value).
			At(errs.Field{Pointer: at, Message: "must be " + words(t.Type), Got: t.Value}).Because(err)
	}
	return errs.New(errs.InvalidField, "%s", errs.Clip(err.Error())).Because(err)
}

func words(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number in range"
	case reflect.Slice:
		return "a list"
	default:
		return "an object"
	}
}

// checker walks the tokens beside the type they are meant for.
type checker struct{ dec *json.Decoder }

func (d *checker) token() (json.Token, error) {
	t, err := d.dec.Token()
	if err != nil {
		return nil, errs.New(errs.InvalidJSON, "the body is not JSON at offset %d", d.dec.InputOffset()).Because(err)
	}
	return t, nil
}

// value checks the next value against t; a nil t takes anything.
func (d *checker) value(t reflect.Type, at string, depth int) error {
	if depth > maxDepth {
		return errs.New(errs.InvalidJSON, "the document is nested deeper than %d", maxDepth)
	}
	optional := false
	for t != nil && t.Kind() == reflect.Pointer {
		t, optional = t.Elem(), true
	}
	tok, err := d.token()
	if err != nil {
		return err
	}
	switch tok {
	case nil:
		if t != nil && !optional {
			return errs.New(errs.InvalidField, "%s must not be null", pointer(at)).At(errs.Field{Pointer: pointer(at), Message: "must not be null"})
		}
		return nil
	case json.Delim('{'):
		return d.object(t, at, depth)
	case json.Delim('['):
		return d.array(t, at, depth)
	}
	return nil
}

func pointer(at string) string {
	if at == "" {
		return "/"
	}
	return at
}

func (d *checker) array(t reflect.Type, at string, depth int) error {
	var elem reflect.Type
	if t != nil && t.Kind() == reflect.Slice {
		elem = t.Elem()
	}
	for i := 0; d.dec.More(); i++ {
		if err := d.value(elem, at+"/"+strconv.Itoa(i), depth+1); err != nil {
			return err
		}
	}
	_, err := d.token()
	return err
}

func (d *checker) object(t reflect.Type, at string, depth int) error {
	fields, elem := shape(t)
	seen := map[string]bool{}
	for d.dec.More() {
		tok, err := d.token()
		if err != nil {
			return err
		}
		key, _ := tok.(string)
		here := at + "/" + escapePointer(errs.Clip(key))
		if seen[key] {
			return errs.New(errs.InvalidJSON, "the key %q stands twice at %s", errs.Clip(key), pointer(at)).At(errs.Field{Pointer: here, Message: "stands twice"})
		}
		seen[key] = true
		next := elem
		if fields != nil {
			f, ok := fields[key]
			if !ok {
				return unknownField(fields, key, here)
			}
			next = f
		}
		if err := d.value(next, here, depth+1); err != nil {
			return err
		}
	}
	_, err := d.token()
	return err
}

// escapePointer makes a key a part of a JSON pointer (RFC 6901).
func escapePointer(key string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(key) }

var textType = reflect.TypeFor[encoding.TextUnmarshaler]()

// shape gives the keys a type takes: a struct's own, any for a map or an
// unknown type.
func shape(t reflect.Type) (fields map[string]reflect.Type, elem reflect.Type) {
	if t == nil || reflect.PointerTo(t).Implements(textType) {
		return nil, nil
	}
	switch t.Kind() {
	case reflect.Map:
		return nil, t.Elem()
	case reflect.Struct:
		fields = map[string]reflect.Type{}
		for _, f := range reflect.VisibleFields(t) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name != "" && name != "-" {
				fields[name] = f.Type
			}
		}
		return fields, nil
	default:
		return nil, nil
	}
}

func unknownField(fields map[string]reflect.Type, key, at string) error {
	if readOnly[key] {
		return errs.New(errs.FieldNotWritable, "%s cannot be set here", at).At(errs.Field{Pointer: at, Message: "cannot be set here"})
	}
	hint := near.Hint(key, maps.Keys(fields))
	return errs.New(errs.UnknownField, "there is no field %q here%s", errs.Clip(key), hint).
		At(errs.Field{Pointer: at, Message: "is unknown" + hint, Got: key})
}
