package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/novacron/novacron"

// file is one parsed Go file of the repository.
type file struct {
	path      string // from the root, with slashes
	lines     int
	generated bool
	fset      *token.FileSet
	ast       *ast.File
}

func (f *file) folder() string { return path.Dir(f.path) }

func (f *file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// under says whether the file is in that folder or below it.
func (f *file) under(folder string) bool { return within(f.folder(), folder) }

func (f *file) at(n ast.Node) string {
	return f.path + ":" + strconv.Itoa(f.fset.Position(n.Pos()).Line)
}

// imports lists the import paths of the file.
func (f *file) imports() []string {
	var paths []string
	for _, spec := range f.ast.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

func within(folder, parent string) bool {
	return folder == parent || strings.HasPrefix(folder, parent+"/")
}

func parse(name string, src []byte) (*file, error) {
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &file{
		path:      name,
		lines:     strings.Count(string(src), "\n"),
		generated: ast.IsGenerated(parsed),
		fset:      fset,
		ast:       parsed,
	}, nil
}

// snippet parses a source text as if it stood at that path.
func snippet(t *testing.T, name, src string) *file {
	t.Helper()
	f, err := parse(name, []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const root = "../.."

// foreign folders hold nothing of the product's Go.
func foreign(name string) bool {
	switch name {
	case "node_modules", "testdata", "tools", "bin", "vendor":
		return true
	default:
		return strings.HasPrefix(name, ".") && name != "." && name != ".."
	}
}

// tree parses the repository, once.
var tree = sync.OnceValues(func() ([]*file, error) {
	var files []*file
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && foreign(entry.Name()):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		f, err := read(name)
		files = append(files, f)
		return err
	})
	return files, err
})

func read(name string) (*file, error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	rel, err := filepath.Rel(root, name)
	if err != nil {
		return nil, err
	}
	return parse(filepath.ToSlash(rel), src)
}

func repository(t *testing.T) []*file {
	t.Helper()
	files, err := tree()
	if err != nil {
		t.Fatalf("read the repository: %v", err)
	}
	return files
}
