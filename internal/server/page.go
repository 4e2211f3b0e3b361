package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strconv"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Bounds of a page.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// pageParams are taken by every list, besides its filters.
var pageParams = []Param{
	{"limit", "How many at most: 1 to 1000, 100 by default."},
	{"cursor", "Where the page begins: next of the page before."},
	{"sort", "A field to sort by, with '-' before it for descending."},
}

// nameDoc ends the sentence about a filter by name.
const nameDoc = "; several are parted by commas, and one ending with '*' stands for all that begin so."

func listParams(filters ...Param) []Param {
	return append(append([]Param(nil), pageParams...), filters...)
}

// pages signs and reads cursors: a cursor belongs to one list with one sort and
// one set of filters, and nobody can make one up.
type pages struct{ key []byte }

type cursor struct {
	List  string `json:"l"`
	Query string `json:"q"`
	Key   string `json:"k"`
	ID    id.ID  `json:"i"`
}

// question is what a cursor is bound to: the parameters that shape the list.
func question(q url.Values) string {
	c := url.Values{}
	for k, v := range q {
		if k != "cursor" && k != "limit" {
			c[k] = v
		}
	}
	return c.Encode()
}

// read turns a list's parameters into a page.
func (p pages) read(r *Request, list string) (store.Page, error) {
	q := r.URL.Query()
	limit, err := readLimit(q)
	if err != nil {
		return store.Page{}, err
	}
	out := store.Page{Limit: limit, Sort: q.Get("sort"), Filters: map[string]string{}}
	for k := range q {
		if k != "limit" && k != "sort" && k != "cursor" {
			out.Filters[k] = q.Get(k)
		}
	}
	if s := q.Get("cursor"); s != "" {
		c, err := p.open(s, list, question(q))
		if err != nil {
			return out, err
		}
		out.AfterKey, out.AfterID = c.Key, &c.ID
	}
	return out, nil
}

func readLimit(q url.Values) (int, error) {
	s := q.Get("limit")
	if s == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxLimit || s[0] == '+' {
		return 0, errs.New(errs.InvalidCursor, "limit is 1 to %d", maxLimit).
			At(errs.Field{Pointer: "limit", Message: "is out of range", Limit: "1 to " + strconv.Itoa(maxLimit), Got: s})
	}
	return n, nil
}

func (p pages) sign(b []byte) []byte {
	m := hmac.New(sha256.New, p.key)
	m.Write(b)
	return m.Sum(nil)[:16]
}

func (p pages) open(s, list, query string) (cursor, error) {
	var c cursor
	bad := errs.New(errs.InvalidCursor, "this cursor does not belong to this list: begin again without one")
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(raw) < 16 {
		return c, bad
	}
	sig, body := raw[:16], raw[16:]
	if !hmac.Equal(sig, p.sign(body)) || json.Unmarshal(body, &c) != nil || c.List != list || c.Query != query {
		return c, bad
	}
	return c, nil
}

// next makes the cursor of the following page; empty after the last.
func (p pages) next(r *Request, list string, n *store.Next) string {
	if n == nil {
		return ""
	}
	body, err := json.Marshal(cursor{list, question(r.URL.Query()), n.Key, n.ID})
	if err != nil {
		panic(err) // strings and an id always marshal
	}
	return base64.RawURLEncoding.EncodeToString(append(p.sign(body), body...))
}

// list makes a page's document.
func list[D, T any](items []D, next string, convert func(D) T) reply[api.List[T]] {
	out := api.List[T]{Items: make([]T, 0, len(items)), Next: next}
	for _, i := range items {
		out.Items = append(out.Items, convert(i))
	}
	return reply[api.List[T]]{Body: out}
}
