package cli

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/cli/manifest"
	"github.com/novacron/novacron/internal/cli/output"
)

func newDiff(a *app) *cobra.Command {
	var f fileFlags
	var prune bool
	cmd := leaf("diff -f FILE", "Show what applying documents would change", names(), func(cmd *cobra.Command, _ []string) error {
		docs, err := f.read(a, cmd)
		if err != nil {
			return err
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		results, err := judge(cmd.Context(), c, docs, prune)
		if err != nil {
			return err
		}
		return a.showDiff(docs, results)
	})
	cmd.Long = `Show what applying documents would change, as a unified diff of the documents that
declare each object as it is and as it would be. The server computes it, by the
rules it changes things by. Nothing is changed.

The exit code is 0 when nothing differs, and 9 when something does. A document
that would be refused ends it with the exit code of its refusal.`
	cmd.Example = `  novacron diff -f project/`
	f.add(cmd)
	cmd.Flags().BoolVar(&prune, "prune", false, "as for apply: disks that are not declared would be removed")
	return cmd
}

func (a *app) showDiff(docs []manifest.Document, results []api.ApplyResult) error {
	differs, refused := false, 0
	var first *api.Error
	for i, r := range results {
		if r.Error != nil {
			fmt.Fprintf(a.err, "%s %s: refused: %s\n", output.Clean(r.Kind), output.Clean(r.Name), refusal(docs[i], r.Error))
			if refused++; first == nil {
				first = r.Error
			}
			continue
		}
		before, err := declaration(r.Before)
		if err != nil {
			return err
		}
		after, err := declaration(r.After)
		if err != nil {
			return err
		}
		name := r.Kind + "/" + r.Name
		text := manifest.Diff(name+" (is)", name+" (declared)", before, after)
		differs = differs || text != ""
		fmt.Fprint(a.out, text)
	}
	switch {
	case first != nil:
		return &api.Error{Code: first.Code, Detail: fmt.Sprintf("%d of %d documents would be refused", refused, len(results))}
	case differs:
		return errDiffers
	default:
		return nil
	}
}

// declaration is a document as it is written in a file; empty for none.
func declaration(raw json.RawMessage) (string, error) {
	if len(raw) == 0 {
		return "", nil
	}
	text, err := output.YAML.Text(raw)
	return string(text), err
}
