package server

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
)

// A cursor was signed for one list with its filters and its sort; under any other
// it is refused, not read as if it fitted.
func TestCursorsBelongToTheirList(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	for i := range 3 {
		r.image(fmt.Sprint("img-", i))
	}
	first, status := call[api.List[api.Image]](r, "GET", "/api/v1/images?limit=1&kind=kernel&sort=name", nil)
	if status != http.StatusOK || len(first.Items) != 1 || first.Next == "" {
		t.Fatalf("%d %+v", status, first)
	}
	second, status := call[api.List[api.Image]](r, "GET", "/api/v1/images?limit=2&kind=kernel&sort=name&cursor="+first.Next, nil)
	if status != http.StatusOK || len(second.Items) != 2 || second.Items[0].Name != "img-1" || second.Next != "" {
		t.Fatalf("%d %+v", status, second)
	}
	for _, query := range []string{
		"/api/v1/images?limit=1&kind=kernel&sort=-name", "/api/v1/images?limit=1&kind=kernel&sort=created_at",
		"/api/v1/images?limit=1&kind=kernel", "/api/v1/images?limit=1&kind=disk&sort=name", "/api/v1/images?limit=1&sort=name",
		"/api/v1/nodes?sort=name", "/api/v1/vms?sort=name", "/api/v1/audit?sort=seq",
	} {
		u, err := url.Parse(query)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set("cursor", first.Next)
		e, status := call[api.Error](r, "GET", u.Path+"?"+q.Encode(), nil)
		if status != http.StatusBadRequest || e.Code != "invalid_cursor" {
			t.Errorf("%s with a foreign cursor: %d %s", query, status, e.Code)
		}
	}
}
