package server

import (
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

var update = flag.Bool("update", false, "write the golden files anew")

// table is every route, without a server behind it.
func table() []Route { return (&Server{}).table() }

// The document of the API is made from the types that are really read and
// written; a change of it is a change of a promise, so it is looked at.
func TestOpenAPIGolden(t *testing.T) {
	got, err := json.MarshalIndent(document(table(), "golden"), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const path = "testdata/openapi.json"
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("the API's document changed: look at the difference after 'go test ./internal/server -run OpenAPIGolden -update'")
	}
}

func TestRoutesAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, rt := range table() {
		if rt.ID == "" || rt.Summary == "" || rt.Need.Resource == "" || rt.serve == nil {
			t.Errorf("%s %s lacks id, summary, need or handler", rt.Method, rt.Path)
		}
		if rt.Need.Resource != auth.Public && rt.Need.Action == "" {
			t.Errorf("%s needs no action", rt.ID)
		}
		if rt.Method != http.MethodGet && rt.Need.Action == auth.Read {
			t.Errorf("%s changes something and needs only read", rt.ID)
		}
		if seen[rt.ID] {
			t.Errorf("%s stands twice", rt.ID)
		}
		seen[rt.ID] = true
	}
}

// Every code has a status and every document field a wire name.
func TestEveryCodeHasAStatus(t *testing.T) {
	src, err := os.ReadFile("../vocab/errs/code.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`Code = "(\w+)"`).FindAllStringSubmatch(string(src), -1) {
		if statusOf[errs.Code(m[1])] == 0 {
			t.Errorf("code %s has no HTTP status", m[1])
		}
	}
}

// matrix: what each kind of credential gets from a route.
func TestRouteMatrix(t *testing.T) {
	// what a stranger may ask for in a moment is less than there are routes
	r := startAs(t, storetest.New(t), t.TempDir(), Options{Clock: clock.System{}, Listen: "127.0.0.1:0", Limits: Limits{AddressRate: 1000}})
	tokens := map[string]string{"none": "", "garbage": "nvc_garbage", "not-a-token": "whatever"}
	for _, role := range []string{"administrator", "reader", "revoked"} {
		k, status := call[api.Token](r, "POST", "/api/v1/tokens", api.TokenCreate{Name: role, Role: strings.Replace(role, "revoked", "administrator", 1)})
		if status != http.StatusCreated || k.Token == "" {
			t.Fatalf("make token %s: %d", role, status)
		}
		tokens[role] = k.Token
		if role == "revoked" {
			if status, b := r.raw("DELETE", "/api/v1/tokens/"+k.ID, nil); status != http.StatusNoContent {
				t.Fatalf("revoke: %d %s", status, b)
			}
		}
	}
	remote := r.remote()
	for _, rt := range table() {
		path := pathArg.ReplaceAllString(rt.Path, "none-such")
		for who, token := range tokens {
			got := remote(rt.Method, path, token)
			if want := expected(rt, who); got != want && (want != 0 || got == 401 || got == 403) {
				t.Errorf("%s %s as %s: %d, want %d (0: let through)", rt.Method, rt.Path, who, got, want)
			}
		}
	}
}

// expected is 401 or 403, or 0 where the gate lets through and the handler has
// its say.
func expected(rt Route, who string) int {
	if rt.Need.Resource == auth.Public {
		return 0
	}
	role, known := map[string]auth.Role{"administrator": auth.Administrator, "reader": auth.Reader}[who]
	switch {
	case !known:
		return http.StatusUnauthorized
	case !auth.May(role, rt.Need):
		return http.StatusForbidden
	default:
		return 0
	}
}

// Denied attempts are on record.
func TestDenialsAreAudited(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	k, _ := call[api.Token](r, "POST", "/api/v1/tokens", api.TokenCreate{Name: "ro", Role: "reader"})
	if got := r.remote()("POST", "/api/v1/nodes/n1/cordon", k.Token); got != http.StatusForbidden {
		t.Fatalf("a reader cordons: %d", got)
	}
	var found bool
	for range 100 { // the chain is a second behind at most
		l, _ := call[api.List[api.AuditRecord]](r, "GET", "/api/v1/audit?outcome=denied", nil)
		if len(l.Items) == 1 && l.Items[0].Principal == "token ro" && l.Items[0].Action == "cordonNode" {
			found = true
			break
		}
		r.wait()
	}
	if !found {
		t.Error("the denied attempt is not in the audit log")
	}
}

func TestSetup(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	use := func() (api.Token, int) {
		return call[api.Token](r, "POST", "/api/v1/setup", api.Setup{SetupToken: r.info.SetupToken, Name: "first"})
	}
	k, status := use()
	if status != http.StatusCreated || k.Role != "administrator" || k.Token == "" {
		t.Fatalf("setup: %d %+v", status, k)
	}
	if got := r.remote()("GET", "/api/v1/tokens", k.Token); got != http.StatusOK {
		t.Errorf("the first administrator's token: %d", got)
	}
	if _, status := use(); status != http.StatusUnauthorized {
		t.Errorf("the setup token works twice: %d", status)
	}
}

func TestDocumentTypesHaveWireNames(t *testing.T) {
	for _, rt := range table() {
		for _, typ := range []reflect.Type{rt.body, rt.reply} {
			if typ == nil || typ.Kind() != reflect.Struct {
				continue
			}
			for _, f := range reflect.VisibleFields(typ) {
				if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); !f.Anonymous && (name == "" || name != strings.ToLower(name)) {
					t.Errorf("%s: field %s of %s has the wire name %q", rt.ID, f.Name, typ, name)
				}
			}
		}
	}
}
