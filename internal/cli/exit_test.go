package cli

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// codes reads every code that exists from its source.
func codes(t *testing.T) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../vocab/errs/code.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			for _, x := range v.Values {
				if lit, ok := x.(*ast.BasicLit); ok {
					s, err := strconv.Unquote(lit.Value)
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, s)
				}
			}
		}
		return true
	})
	return all
}

func TestEveryCodeHasItsExit(t *testing.T) {
	all := codes(t)
	if len(all) < 30 {
		t.Fatalf("only %d codes were found", len(all))
	}
	for _, c := range all {
		if _, known := classes[c]; !known && c != string(errs.Internal) {
			t.Errorf("%s has no exit code: say in exit.go what a script can do about it", c)
		}
	}
}

func TestExitCodes(t *testing.T) {
	cases := []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{&usageError{}, 2},
		{&api.Error{Code: "invalid_name"}, 2},
		{fmt.Errorf("read it: %w", &api.Error{Code: "not_found"}), 3},
		{errs.New(errs.VMBusy, "busy"), 4},
		{&api.Error{Code: "forbidden"}, 5},
		{&api.Error{Code: client.CodeUntrusted}, 5},
		{&api.Error{Code: client.CodeUnreachable}, 6},
		{&api.Error{Code: "something_new", Retryable: true}, 6},
		{&api.Error{Code: "something_new"}, 1},
		{context.DeadlineExceeded, 6},
		{&client.JobError{}, 7},
		{errs.New(errs.NoSpace, "full"), 8},
		{errInterrupted, 130},
	}
	for _, tc := range cases {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("%v: exit code %d, want %d", tc.err, got, tc.want)
		}
	}
}
