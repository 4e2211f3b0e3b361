package arch

import (
	"go/ast"
	"path"
	"strings"
	"testing"
)

const (
	maxLines     = 500
	maxTestLines = 1000
)

func TestFilesAreShort(t *testing.T) {
	for _, f := range repository(t) {
		limit := maxLines
		if f.isTest() {
			limit = maxTestLines
		}
		if !f.generated && f.lines > limit {
			t.Errorf("%s has %d lines, the limit is %d: split it by what its parts are about", f.path, f.lines, limit)
		}
	}
}

// TestEveryPackageSaysWhatItIs wants one package comment per package: two
// drift apart, none leaves the reader alone.
func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for folder, files := range packages(repository(t)) {
		var docs []*file
		for _, f := range files {
			if f.ast.Doc != nil {
				docs = append(docs, f)
			}
		}
		switch {
		case len(docs) == 0:
			t.Errorf("%s has no package comment: say in doc.go what it is for", folder)
		case len(docs) > 1:
			t.Errorf("%s has %d package comments (%s, %s): keep one, in doc.go", folder, len(docs), docs[0].path, docs[1].path)
		case !isSentence(docs[0].ast):
			t.Errorf("%s: begin with \"Package %s ...\" (or \"Command ...\") and end the sentence with a period",
				docs[0].path, docs[0].ast.Name.Name)
		}
	}
}

// packages groups files by folder. A package's tests speak for it only when it
// has nothing else.
func packages(files []*file) map[string][]*file {
	product, tests := map[string][]*file{}, map[string][]*file{}
	for _, f := range files {
		switch {
		case f.isTest():
			tests[f.folder()] = append(tests[f.folder()], f)
		case !f.generated || path.Base(f.path) == "doc.go":
			product[f.folder()] = append(product[f.folder()], f)
		default: // generated: its comment, if any, is not the package's
		}
	}
	for folder, group := range tests {
		if !hasProduct(files, folder) {
			product[folder] = group
		}
	}
	return product
}

func hasProduct(files []*file, folder string) bool {
	for _, f := range files {
		if f.folder() == folder && !f.isTest() {
			return true
		}
	}
	return false
}

func isSentence(f *ast.File) bool {
	text := f.Doc.Text()
	named := strings.HasPrefix(text, "Package "+f.Name.Name+" ") || f.Name.Name == "main" && strings.HasPrefix(text, "Command ")
	return named && strings.Contains(text, ".")
}
