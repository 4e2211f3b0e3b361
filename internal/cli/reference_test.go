package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

var update = flag.Bool("update", false, "write the reference documents")

// The reference documents are what the program says of itself. After a change:
// go test ./internal/cli -run TestReference -update.
func TestReference(t *testing.T) {
	for name, text := range map[string]string{"cli.md": cliReference(t), "errors.md": errorReference()} {
		path := filepath.Join("..", "..", "docs", "reference", name)
		if *update {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		have, err := os.ReadFile(path)
		if err != nil || string(have) != text {
			t.Errorf("docs/reference/%s is not what the program says (%v): go test ./internal/cli -run TestReference -update", name, err)
		}
	}
}

func errorReference() string {
	var b strings.Builder
	b.WriteString("# Error codes\n\nEvery error of the API has a `code` that never changes its meaning; the command line shows it in brackets and ends with\nthe exit code of its class. `novacron explain CODE` says the same.\n\n")
	b.WriteString("| code | HTTP | exit | try again | what happened | what to do |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, c := range errs.Codes() {
		e := explain(c)
		fmt.Fprintf(&b, "| `%s` | %d | %d | %s | %s | %s |\n", e.Code, e.Status, e.Exit, yes(e.Retryable), e.Meaning, e.Remedy)
	}
	return b.String()
}

// cliReference is one document of all commands.
func cliReference(t *testing.T) string {
	a := &app{clock: clock.NewFake(), version: "test", env: func(string) string { return "" }}
	root := newRoot(a)
	root.InitDefaultCompletionCmd()
	var b strings.Builder
	b.WriteString("# The command line\n\nWhat `novacron COMMAND --help` says, of every command.\n")
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			return
		}
		var one bytes.Buffer
		c.DisableAutoGenTag = true
		if err := doc.GenMarkdownCustom(c, &one, func(link string) string {
			return "#" + strings.ReplaceAll(strings.TrimSuffix(link, ".md"), "_", "-")
		}); err != nil {
			t.Fatal(err)
		}
		text, _, _ := strings.Cut(one.String(), "### SEE ALSO")
		text, _, _ = strings.Cut(text, "### Options inherited from parent commands")
		b.WriteString("\n" + strings.TrimSpace(text) + "\n")
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return b.String()
}

// Manual pages are written for every command.
func TestManualPages(t *testing.T) {
	b, dir := newBench(t), t.TempDir()
	b.args(t, 0, "man", dir)
	for _, page := range []string{"novacron.1", "novacron-vm-create.1", "novacron-install.1"} {
		raw, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil || !bytes.Contains(raw, []byte(".SH NAME")) {
			t.Errorf("%s: %v", page, err)
		}
	}
}

func TestExplain(t *testing.T) {
	b := newBench(t)
	if out := b.do(t, "explain vm_busy", 0); !strings.Contains(out, "A job holds the VM") || !strings.Contains(out, "409") {
		t.Error(out)
	}
	if out := b.do(t, "explain vm_bizy", 3); !strings.Contains(out, `did you mean "vm_busy"`) {
		t.Error(out)
	}
}
