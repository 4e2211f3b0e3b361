// Package id makes and reads the identifiers of every object.
//
// All keys are UUID version 7 (RFC 9562): they sort by creation time within a
// millisecond, which keeps database indexes compact, and are never made from
// anything a user typed. Ids are made by the server; order between events
// comes from the sequencer, never from ids.
package id

import (
	"github.com/google/uuid"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// ID names one object for ever. The zero value names nothing.
type ID = uuid.UUID

// Nil is the id of nothing.
var Nil = uuid.Nil

// New makes a fresh version 7 id. It panics only if the kernel's random source
// fails, after which nothing in this process can be trusted.
func New() ID { return uuid.Must(uuid.NewV7()) }

// Parse reads the canonical 36-character form and nothing else (no braces, no
// URN), so that one id has one spelling.
func Parse(s string) (ID, error) {
	u, err := uuid.Parse(s)
	if err != nil || len(s) != 36 {
		return Nil, errs.New(errs.InvalidID, "%q is not an id: expected the form 01890a5d-ac96-774b-bcce-b302099a8057", errs.Clip(s))
	}
	return u, nil
}

// Short is the last 8 hexadecimal digits: random, so it tells objects apart in
// names of folders, cgroups and interfaces, where the leading time bits of two
// ids made in one second would collide.
func Short(u ID) string {
	s := u.String()
	return s[len(s)-8:]
}
