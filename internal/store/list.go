package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/near"
)

// Page asks for one page of a list. The order is total (the id breaks ties), so
// pages neither skip nor repeat an object that was there all the while.
type Page struct {
	// Limit is how many at most; the caller has bounded it.
	Limit int
	// Sort is a key of the list's own table of sorts, with '-' before it for
	// descending; empty for the list's default.
	Sort string
	// AfterKey and AfterID are the last object of the page before; AfterID is nil
	// for the first page.
	AfterKey string
	AfterID  *id.ID
	// Filters by key of the list's own table of filters.
	Filters map[string]string
}

// Next is where the following page begins; nil when this one was the last.
type Next struct {
	Key string
	ID  id.ID
}

// lister is what may be asked of one list: everything else is refused by name.
type lister struct {
	// from is the query without WHERE; each row's first two columns are the sort
	// key as text and the id.
	columns, from string
	where         []string
	filters       map[string]filter
	sorts         map[string]sortKey // sort -> SQL expression
	defaultSort   string
	// idColumn breaks ties; empty where the sort keys have none.
	idColumn string
}

// sortKey is an expression to sort by, and its type: it travels as text and is
// compared as what it is, so that an index serves it.
type sortKey struct{ expr, typ string }

// The sorts most lists have. Ids are of version 7: their order is that of
// creation.
func byName(column string) sortKey   { return sortKey{column, "text"} }
func byID(column string) sortKey     { return sortKey{column, "uuid"} }
func byNumber(column string) sortKey { return sortKey{column, "bigint"} }

// build makes the statement; user input only ever becomes a parameter.
func (l lister) build(p Page, fixed ...any) (sql string, args []any, err error) {
	args = fixed
	where := append([]string(nil), l.where...)
	param := func(v any) string {
		args = append(args, v)
		return fmt.Sprintf("$%d", len(args))
	}
	for k, v := range p.Filters {
		f, ok := l.filters[k]
		if !ok {
			return "", nil, errs.New(errs.InvalidFilter, "there is no filter %q here%s; there are: %s",
				errs.Clip(k), near.Hint(k, maps.Keys(l.filters)), keys(l.filters)).At(errs.Field{Pointer: k, Message: "is no filter"})
		}
		cond, err := f(v, param)
		if err != nil {
			e := errs.As(err)
			return "", nil, errs.New(e.Code, "%s: %s", k, e.Message).At(errs.Field{Pointer: k, Message: e.Message, Got: v})
		}
		where = append(where, cond)
	}
	sort := p.Sort
	if sort == "" {
		sort = l.defaultSort
	}
	name, desc := strings.CutPrefix(sort, "-")
	key, ok := l.sorts[name]
	if !ok {
		return "", nil, errs.New(errs.InvalidFilter, "this list cannot be sorted by %q%s; it can by: %s",
			errs.Clip(name), near.Hint(name, maps.Keys(l.sorts)), keys(l.sorts)).At(errs.Field{Pointer: "sort", Message: "is no sort", Got: name})
	}
	if p.AfterID != nil {
		where = append(where, l.after(key, desc, p, param))
	}
	sql = fmt.Sprintf("SELECT (%s)::text AS sort_key, %s FROM %s", key.expr, l.columns, l.from)
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	dir := "ASC"
	if desc {
		dir = "DESC"
	}
	sql += fmt.Sprintf(" ORDER BY %s %s", key.expr, dir)
	if l.idColumn != "" {
		sql += fmt.Sprintf(", %s %s", l.idColumn, dir)
	}
	return sql + " LIMIT " + param(p.Limit+1), args, nil
}

// after is the condition of being behind the last object of the page before.
func (l lister) after(key sortKey, desc bool, p Page, param func(any) string) string {
	op := ">"
	if desc {
		op = "<"
	}
	last := fmt.Sprintf("%s::text::%s", param(p.AfterKey), key.typ)
	if l.idColumn == "" {
		return fmt.Sprintf("%s %s %s", key.expr, op, last)
	}
	return fmt.Sprintf("(%s, %s) %s (%s, %s::uuid)", key.expr, l.idColumn, op, last, param(*p.AfterID))
}

func keys[V any](m map[string]V) string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// listRows runs the statement and cuts the page; scan gives the row's sort key
// and id along with the object.
func listRows[T any](
	ctx context.Context, db querier, l lister, p Page, scan func(pgx.Rows) (T, Next, error), fixed ...any,
) ([]T, *Next, error) {
	sql, args, err := l.build(p, fixed...)
	if err != nil {
		return nil, nil, err
	}
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, nil, listFailed(err)
	}
	defer rows.Close()
	var out []T
	var last Next
	for rows.Next() {
		if len(out) == p.Limit {
			return out, &last, nil
		}
		var v T
		if v, last, err = scan(rows); err != nil {
			return nil, nil, pgtx.Map(err)
		}
		out = append(out, v)
	}
	return out, nil, listFailed(rows.Err())
}

// listFailed: a sort key that is not of its type comes from a cursor of another
// sort.
func listFailed(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == "22P02" || pg.Code == "22003") {
		return errs.New(errs.InvalidCursor, "the cursor does not belong to this list").Because(err)
	}
	return pgtx.Map(err)
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}
