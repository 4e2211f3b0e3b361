package e2e

import (
	"bytes"
	"context"
	"fmt"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	examples = "../client/examples"
	sdkPage  = "../docs/sdk.md"
)

// Every example of the SDK does, against a real server, what its comment says, and
// the page about the SDK names it.
func TestExamples(t *testing.T) {
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir, examples+"/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the examples: %v\n%s", err, out)
	}
	page, err := os.ReadFile(sdkPage)
	if err != nil {
		t.Fatal(err)
	}
	folders, err := filepath.Glob(examples + "/*")
	if err != nil || len(folders) < 8 {
		t.Fatalf("examples %v: %v", folders, err)
	}
	i := up(t, "--sim", "1")
	i.importSliver()
	for _, folder := range folders {
		name := filepath.Base(folder)
		t.Run(name, func(t *testing.T) {
			synopsis, want := described(t, filepath.Join(folder, "main.go"))
			if line := fmt.Sprintf("| [%s](../client/examples/%s/main.go) | %s |", name, name, synopsis); !strings.Contains(string(page), line+"\n") {
				t.Errorf("%s has no line\n%s", sdkPage, line)
			}
			ctx, cancel := context.WithTimeout(t.Context(), i.patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(dir, name), "sliver")
			cmd.Env = append(os.Environ(), "NOVACRON_SOCKET="+i.state().Summary.Socket)
			var told bytes.Buffer
			cmd.Stderr = &told
			got, err := cmd.Output()
			if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
				t.Errorf("%v (-said +printed):\n%s\n%s", err, diff, told.String())
			}
		})
	}
}

// described reads the comment of an example: what it does, as the page says it, and
// what it prints.
func described(t *testing.T, path string) (synopsis, output string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		t.Fatal(err)
	}
	text, listing, found := strings.Cut(f.Doc.Text(), "\nOutput:\n\n")
	_, synopsis, named := strings.Cut((&doc.Package{}).Synopsis(text), "Command "+filepath.Base(filepath.Dir(path))+" ")
	if !found || !named {
		t.Fatalf("%s: the comment begins with the command's name and ends with its output: %q", path, f.Doc.Text())
	}
	for line := range strings.Lines(listing) {
		output += strings.TrimPrefix(line, "\t")
	}
	return synopsis, output
}
