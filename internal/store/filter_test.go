package store

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Whatever is asked of a list, the text goes into parameters: the statement is the
// same for words of other letters.
func FuzzFilters(f *testing.F) {
	f.Add("name", "web-*,db", "-name", "x")
	f.Add("label", "tier=web,a", "created_at", "'; DROP TABLE vms; --")
	f.Add("state", "running,stopped", "", "")
	f.Add("node", "n1' OR '1'='1", "memory_bytes", "1")
	f.Fuzz(func(t *testing.T, key, value, sort, after string) {
		for _, l := range []lister{vmList, imageList, nodeList, jobList, auditList} {
			sql, args, err := l.build(Page{Limit: 10, Sort: sort, AfterKey: after, Filters: map[string]string{key: value}})
			if err != nil {
				if !errs.Is(err, errs.InvalidFilter) {
					t.Errorf("%q=%q sort %q: %v", key, value, sort, err)
				}
				continue
			}
			plain, same, err := l.build(Page{Limit: 10, Sort: sort, AfterKey: letters(after), Filters: map[string]string{key: letters(value)}})
			if err == nil && (plain != sql || len(same) != len(args)) {
				t.Errorf("%q=%q makes\n%s\nand with other letters\n%s", key, value, sql, plain)
			}
		}
	})
}

// letters writes x for every character that has no meaning in a filter.
func letters(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(",*=", r) {
			return r
		}
		return 'x'
	}, s)
}
