package arch

import (
	"go/ast"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const statusPage = "docs/status.md"

// skips maps "package.Function" to where that function skips a test.
func skips(files []*file) map[string]string {
	found := map[string]string{}
	for _, f := range files {
		for _, decl := range f.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Body != nil {
				if call := findSkip(fn.Type, fn.Body); call != nil {
					found[testName(f, fn)] = f.at(call)
				}
			}
		}
	}
	return found
}

func testName(f *file, fn *ast.FuncDecl) string {
	return strings.TrimSuffix(f.ast.Name.Name, "_test") + "." + fn.Name.Name
}

// findSkip looks for a call of Skip on a parameter of package testing's types.
// (A property test discards a case by the same word; that is no skipped test.)
func findSkip(signature *ast.FuncType, body *ast.BlockStmt) ast.Node {
	testers := testingParams(signature)
	var found ast.Node
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			if inner := findSkip(n.Type, n.Body); inner != nil {
				found = inner
			}
			own := testingParams(n.Type)
			return len(own) == 0 && !shadows(n.Type, testers)
		case *ast.CallExpr:
			if isSkip(n, testers) {
				found = n
			}
		}
		return true
	})
	return found
}

func isSkip(call *ast.CallExpr, testers []string) bool {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, selector.Sel.Name) {
		return false
	}
	x, ok := selector.X.(*ast.Ident)
	return ok && slices.Contains(testers, x.Name)
}

// testingParams names the parameters whose type is testing.T, B, F or TB.
func testingParams(signature *ast.FuncType) []string {
	var names []string
	for _, field := range signature.Params.List {
		typ := field.Type
		if star, ok := typ.(*ast.StarExpr); ok {
			typ = star.X
		}
		selector, ok := typ.(*ast.SelectorExpr)
		if !ok {
			continue
		}
		if pkg, ok := selector.X.(*ast.Ident); ok && pkg.Name == "testing" {
			names = append(names, paramNames(field)...)
		}
	}
	return names
}

func paramNames(field *ast.Field) []string {
	var names []string
	for _, name := range field.Names {
		names = append(names, name.Name)
	}
	return names
}

// shadows says whether a literal's parameter hides one of those names.
func shadows(signature *ast.FuncType, names []string) bool {
	for _, field := range signature.Params.List {
		for _, name := range paramNames(field) {
			if slices.Contains(names, name) {
				return true
			}
		}
	}
	return false
}

// section returns the lines of the page under that heading.
func section(page, heading string) []string {
	_, rest, _ := strings.Cut(page, "\n## "+heading+"\n")
	text, _, _ := strings.Cut(rest, "\n## ")
	return strings.Split(text, "\n")
}

var (
	skipLine  = regexp.MustCompile(`^- ` + "`?" + `([\w]+\.\w+)` + "`?" + `: \S`)
	proofName = regexp.MustCompile("`(\\w+\\.(?:Test|Fuzz)\\w+)`")
)

func listedSkips(page string) []string {
	var names []string
	for _, line := range section(page, "Skipped tests") {
		if m := skipLine.FindStringSubmatch(line); m != nil {
			names = append(names, m[1])
		}
	}
	return names
}

func readStatus(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(root + "/" + statusPage)
	if err != nil {
		t.Fatalf("read the status page: %v", err)
	}
	return string(page)
}

func TestSkippedTestsAreListed(t *testing.T) {
	found, listed := skips(repository(t)), listedSkips(readStatus(t))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if !slices.Contains(listed, name) {
			t.Errorf("%s skips a test: add \"- %s: reason\" to %s, section Skipped tests", found[name], name, statusPage)
		}
	}
	for _, name := range listed {
		if _, ok := found[name]; !ok {
			t.Errorf("%s lists %s as skipped, but nothing there skips: remove the line", statusPage, name)
		}
	}
}

func TestProofsExist(t *testing.T) {
	tests := map[string]bool{}
	for _, f := range repository(t) {
		for _, decl := range f.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && f.isTest() {
				tests[testName(f, fn)] = true
			}
		}
	}
	for _, line := range section(readStatus(t), "What works") {
		for _, m := range proofName.FindAllStringSubmatch(line, -1) {
			if !tests[m[1]] {
				t.Errorf("%s names %s as a proof, but there is no such test", statusPage, m[1])
			}
		}
	}
}

func TestSkipRule(t *testing.T) {
	cases := []struct {
		src  string
		want []string
	}{
		{"func TestA(t *testing.T) { t.Skip() }", []string{"x.TestA"}},
		{"func TestB(t *testing.T) { t.Run(\"\", func(t *testing.T) { t.Skipf(\"no\") }) }", []string{"x.TestB"}},
		{"func TestC(t *testing.T) { f(func() { t.SkipNow() }) }", []string{"x.TestC"}},
		{"func TestD(t *testing.T) { rapid.Check(t, func(t *rapid.T) { t.Skip() }) }", nil},
		{"func helper(tb testing.TB) { tb.Skip() }", []string{"x.helper"}},
		{"func TestE(t *testing.T) { rows.Skip() }", nil},
	}
	for _, c := range cases {
		f := snippet(t, "x_test.go", "package x_test\n"+c.src+"\n")
		if got := slices.Sorted(maps.Keys(skips([]*file{f}))); !slices.Equal(got, c.want) {
			t.Errorf("%s: found %v, want %v", c.src, got, c.want)
		}
	}
}

func TestStatusFormat(t *testing.T) {
	page := "# x\n\n## What works\n- `a.TestNot`: no\n\n## Skipped tests\n\n- `a.TestA`: why\n- b.TestB: why\n- c.TestC:\n\n## End\n- d.TestD: x\n"
	if got, want := listedSkips(page), []string{"a.TestA", "b.TestB"}; !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}
