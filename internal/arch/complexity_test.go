package arch

import (
	"go/ast"
	"go/token"
	"testing"
)

const maxComplexity = 10

// complexity is one plus the decisions of a function. A switch over one value
// or type is a table and counts as one decision, however many cases it has; a
// switch without a value is a chain of ifs and counts each. A function literal
// is a function of its own.
func complexity(body *ast.BlockStmt) int {
	count := 1
	ast.Inspect(body, func(n ast.Node) bool {
		if _, ok := n.(*ast.FuncLit); ok {
			return false
		}
		count += decisions(n)
		return true
	})
	return count
}

func decisions(n ast.Node) int {
	switch n := n.(type) {
	case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt, *ast.TypeSwitchStmt:
		return 1
	case *ast.SwitchStmt:
		if n.Tag == nil {
			return conditions(n.Body)
		}
		return 1
	case *ast.SelectStmt:
		return conditions(n.Body)
	case *ast.BinaryExpr:
		if n.Op == token.LAND || n.Op == token.LOR {
			return 1
		}
	}
	return 0
}

// conditions counts the cases that are not the default.
func conditions(body *ast.BlockStmt) int {
	count := 0
	for _, clause := range body.List {
		switch clause := clause.(type) {
		case *ast.CaseClause:
			if clause.List != nil {
				count++
			}
		case *ast.CommClause:
			if clause.Comm != nil {
				count++
			}
		}
	}
	return count
}

// functions calls visit for every function and every function literal.
func functions(f *file, visit func(name string, n ast.Node, body *ast.BlockStmt)) {
	name := "a function at file level"
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			name = n.Name.Name
			if n.Body != nil {
				visit(name, n, n.Body)
			}
		case *ast.FuncLit:
			visit("a function within "+name, n, n.Body)
		}
		return true
	})
}

func TestFunctionsAreSimple(t *testing.T) {
	for _, f := range repository(t) {
		if f.generated || f.isTest() {
			continue
		}
		functions(f, func(name string, n ast.Node, body *ast.BlockStmt) {
			if c := complexity(body); c > maxComplexity {
				t.Errorf("%s: %s has complexity %d, the limit is %d: give its parts names of their own",
					f.at(n), name, c, maxComplexity)
			}
		})
	}
}

func TestComplexityRule(t *testing.T) {
	cases := []struct {
		name, body string
		want       int
	}{
		{"straight", "x()", 1},
		{"if with and", "if a && b { x() }", 3},
		{"loops", "for i := range 3 { for a { x(i) } }", 3},
		{"table", "switch v { case 1: x(); case 2, 3: y(); default: z() }", 2},
		{"type table", "switch v.(type) { case int: x(); case string: y() }", 2},
		{"chain", "switch { case a: x(); case b: y(); default: z() }", 3},
		{"branch in a table", "switch v { case 1: if a { x() } }", 3},
		{"select", "select { case <-a: case b <- 1: default: }", 3},
		{"literal is apart", "f(func() { if a { x() } })", 1},
	}
	for _, c := range cases {
		f := snippet(t, "x.go", "package x\nfunc f() {\n"+c.body+"\n}\n")
		got := 0
		functions(f, func(name string, _ ast.Node, body *ast.BlockStmt) {
			if name == "f" {
				got = complexity(body)
			}
		})
		if got != c.want {
			t.Errorf("%s: complexity %d, want %d", c.name, got, c.want)
		}
	}
}
