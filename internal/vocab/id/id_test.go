package id

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
)

func TestNew(t *testing.T) {
	var mu sync.Mutex
	seen := map[ID]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			last := Nil
			for range 1000 {
				u := New()
				if u.Version() != 7 || bytes.Compare(u[:], last[:]) <= 0 {
					t.Errorf("%s after %s", u, last)
				}
				last = u
				mu.Lock()
				seen[u] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 8000 {
		t.Errorf("%d ids of 8000", len(seen))
	}
}

func TestParse(t *testing.T) {
	u := New()
	if got, err := Parse(u.String()); err != nil || got != u {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{
		"", "x", "{" + u.String() + "}", "urn:uuid:" + u.String(), strings.ReplaceAll(u.String(), "-", ""), u.String() + " ", u.String()[:35] + "g", strings.Repeat("\x00", 36),
	} {
		if got, err := Parse(bad); !errs.Is(err, errs.InvalidID) || got != Nil {
			t.Errorf("%q: %v %v", bad, got, err)
		}
	}
	if s := Short(u); len(s) != 8 || !strings.HasSuffix(u.String(), s) {
		t.Errorf("short %q of %s", s, u)
	}
}

func TestCheckName(t *testing.T) {
	for _, ok := range []string{"a", "0", "web-1", strings.Repeat("a", 63), "a--b", "1-2-3", "all-new"} {
		if err := CheckName("/name", ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"", strings.Repeat("a", 64), "-a", "a-", "-", "A", "a b", "a_b", "a.b", "a/b", "..", "a\x00", "a\n", "é", "ａ", "\u202eab", "all", "new", "none", "null", "self",
		New().String(), strings.Repeat("a", 1<<20),
	} {
		err := CheckName("/name", bad)
		if !errs.Is(err, errs.InvalidName) {
			t.Errorf("%.40q: %v", bad, err)
			continue
		}
		e := errs.As(err)
		if len(e.Fields) != 1 || e.Fields[0].Pointer != "/name" || e.Fields[0].Limit != NameGrammar || len(e.Error()) > 600 {
			t.Errorf("%.40q: %+v", bad, e)
		}
	}
}
