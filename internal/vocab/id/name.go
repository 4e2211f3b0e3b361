package id

import (
	"strings"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// NameGrammar is the sentence every refusal of a name repeats.
const NameGrammar = "1 to 63 characters of a-z, 0-9 and '-', beginning and ending with a letter or digit, and not an id"

// maxName is the length of a DNS label (RFC 1123), so that a name can become one.
const maxName = 63

// reserved words would be ambiguous in a path or a command.
var reserved = map[string]bool{"all": true, "new": true, "none": true, "null": true, "self": true}

// CheckName tells whether a user may give this name to an object. field is the
// JSON pointer the refusal names.
func CheckName(field, name string) error {
	var why string
	switch {
	case name == "":
		why = "is empty"
	case len(name) > maxName:
		why = "is too long"
	case !nameChars(name):
		why = "has a character that is not allowed"
	case name[0] == '-' || name[len(name)-1] == '-':
		why = "begins or ends with '-'"
	case reserved[name]:
		why = "is a reserved word"
	case looksLikeID(name):
		why = "looks like an id"
	default:
		return nil
	}
	e := errs.New(errs.InvalidName, "the name %q %s; a name is %s", errs.Clip(name), why, NameGrammar)
	return e.At(errs.Field{Pointer: field, Message: "name " + why, Limit: NameGrammar, Got: name})
}

func nameChars(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	}) < 0
}

func looksLikeID(s string) bool {
	_, err := Parse(s)
	return err == nil
}
