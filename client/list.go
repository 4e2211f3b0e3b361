package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/novacron/novacron/api"
)

// ListOptions choose what a list holds.
type ListOptions struct {
	// Limit is the size of a page; the server's default if 0.
	Limit int
	// Cursor is List.Next of the page before.
	Cursor string
	// Sort is a field, with "-" before it for descending order.
	Sort string
	// Filter keeps the items with these values, by the names the API documents.
	Filter map[string]string
}

func (o ListOptions) query() url.Values {
	q := url.Values{}
	for k, v := range o.Filter {
		q.Set(k, v)
	}
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	if o.Cursor != "" {
		q.Set("cursor", o.Cursor)
	}
	if o.Sort != "" {
		q.Set("sort", o.Sort)
	}
	return q
}

func list[T any](ctx context.Context, c *Client, path string, o ListOptions) (api.List[T], error) {
	var page api.List[T]
	err := c.do(ctx, request{method: http.MethodGet, path: path, query: o.query(), safe: true}, &page)
	return page, err
}

// all walks through every page. It ends after the first error.
func all[T any](ctx context.Context, c *Client, path string, o ListOptions) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			page, err := list[T](ctx, c, path, o)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			o.Cursor = page.Next
		}
	}
}

// Collect gathers what All gives.
func Collect[T any](seq iter.Seq2[T, error]) ([]T, error) {
	items := []T{}
	for item, err := range seq {
		if err != nil {
			return items, err
		}
		items = append(items, item)
	}
	return items, nil
}
