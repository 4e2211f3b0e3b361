package cli

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/manifest"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// fileFlags name what documents are read from.
type fileFlags struct{ paths []string }

func (f *fileFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&f.paths, "filename", "f", nil, "`file` with documents, a folder of such files, or - for standard input; repeat it for more")
}

// rank is the order in which objects are made: what others need comes first.
func rank(d manifest.Document) int {
	return slices.Index([]string{"image", "node", "vm"}, d.Kind)
}

// read reads every document that is named, in the order in which they are made.
func (f *fileFlags) read(a *app, cmd *cobra.Command) ([]manifest.Document, error) {
	if len(f.paths) == 0 {
		return nil, usage(cmd, "-f FILE is missing")
	}
	var all []manifest.Document
	for _, p := range f.paths {
		found, err := a.readDocuments(cmd, p)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	if len(all) == 0 {
		return nil, errs.New(errs.InvalidYAML, "there is no document in %s", strings.Join(f.paths, ", "))
	}
	first := map[string]manifest.Document{}
	for _, d := range all {
		key := d.Kind + " " + d.Name
		if other, twice := first[key]; twice {
			return nil, errs.New(errs.InvalidYAML, "%s: %s %q is declared twice, first at %s", d.Place(""), d.Kind, d.Name, other.Place(""))
		}
		first[key] = d
	}
	slices.SortStableFunc(all, func(x, y manifest.Document) int { return rank(x) - rank(y) })
	return all, nil
}

// readDocuments reads a file, standard input, or the files of a folder; not those
// of folders in it.
func (a *app) readDocuments(cmd *cobra.Command, path string) ([]manifest.Document, error) {
	if path == "-" {
		return manifest.Read(manifest.Stdin, a.in)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, usage(cmd, "-f: %s", err)
	}
	if !info.IsDir() {
		return readFile(cmd, path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, usage(cmd, "-f: %s", err)
	}
	var all []manifest.Document
	for _, e := range entries {
		if !isDocument(e) {
			continue
		}
		found, err := readFile(cmd, filepath.Join(path, e.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func isDocument(e fs.DirEntry) bool {
	return !e.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) && !strings.HasPrefix(e.Name(), ".")
}

func readFile(cmd *cobra.Command, path string) ([]manifest.Document, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, usage(cmd, "-f: %s", err)
	}
	defer func() { _ = file.Close() }()
	return manifest.Read(path, file)
}

// Bounds of one request, below the server's.
const (
	mostAtOnce  = 500
	bytesAtOnce = 800 << 10
)

// judge asks the server what applying all the documents would do, in as many
// requests as it takes. Nothing is changed.
func judge(ctx context.Context, c *client.Client, docs []manifest.Document, prune bool) ([]api.ApplyResult, error) {
	var out []api.ApplyResult
	for len(docs) > 0 {
		n, size := 0, 0
		for n < len(docs) && n < mostAtOnce && (n == 0 || size+len(docs[n].JSON) < bytesAtOnce) {
			size += len(docs[n].JSON)
			n++
		}
		send := make([]any, n)
		for i := range send {
			send[i] = docs[i].JSON
		}
		done, err := c.Apply(ctx, client.ApplyOptions{DryRun: true, Prune: prune}, send...)
		if err != nil {
			return nil, placed(err, docs[:n])
		}
		out = append(out, done.Results...)
		docs = docs[n:]
	}
	return out, nil
}

// placed rewrites the pointers of a refusal to where the refused parts are
// written.
func placed(err error, docs []manifest.Document) error {
	e := publicError(err)
	if len(e.Errors) == 0 {
		return err
	}
	told := *e
	told.Errors = slices.Clone(e.Errors)
	for i, f := range told.Errors {
		rest, ok := strings.CutPrefix(f.Field, "/documents/")
		index, pointer, _ := strings.Cut(rest, "/")
		n, bad := strconv.Atoi(index)
		if !ok || bad != nil || n < 0 || n >= len(docs) {
			continue
		}
		told.Errors[i].Field = strings.TrimSpace(docs[n].Place("/"+pointer) + " " + strings.TrimPrefix("/"+pointer, "/spec"))
		told.Detail = strings.ReplaceAll(told.Detail, "/documents/"+index+":", docs[n].Kind+" "+docs[n].Name+":")
	}
	return &told
}

// fieldsOf names what differs, for people.
func fieldsOf(pointers []string) string {
	names := make([]string, len(pointers))
	for i, p := range pointers {
		names[i] = strings.TrimPrefix(strings.TrimPrefix(p, "/spec"), "/")
	}
	return output.Clean(strings.Join(names, ", "))
}

// refusal is why a document is not applied, on one line.
func refusal(d manifest.Document, e *api.Error) string {
	at := ""
	if len(e.Errors) > 0 {
		at = e.Errors[0].Field
	}
	return fmt.Sprintf("%s (%s, %s)", output.Clean(e.Detail), output.Clean(e.Code), output.Clean(d.Place(at)))
}
