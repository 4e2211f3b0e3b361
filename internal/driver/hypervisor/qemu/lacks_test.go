package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever a node can tell to be missing stands in the table of docs/security.md, with
// what is lost without it and what to do, and nothing else does.
func TestWhatIsMissingIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "| told as missing | what is lost | what to do |\n| --- | --- | --- |\n")
	if !ok {
		t.Fatal("there is no table")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	rows := map[string]bool{}
	for line := range strings.SplitSeq(table, "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != 3 || cells[1] == "" || cells[2] == "" {
			t.Errorf("a row of %d cells: %s", len(cells), line)
			continue
		}
		rows[cells[0]] = true
	}
	for _, word := range lacked {
		if !rows[word] {
			t.Errorf("%q is not in the table", word)
		}
		delete(rows, word)
	}
	for word := range rows {
		t.Errorf("no node tells %q", word)
	}
}

// A host without cgroups is told once, one that lacks some of their controllers by each;
// in words that are documented.
func TestMissingControllersAreTold(t *testing.T) {
	for has, want := range map[string][]string{
		"":                        {lacksCgroup},
		"kill":                    {lacksMemory, lacksPids, lacksCPU},
		"cpu memory":              {lacksPids},
		"cpu devices memory pids": nil,
	} {
		got := lacksOf(strings.Fields(has))
		if len(got) != len(want) {
			t.Errorf("%q: %q", has, got)
			continue
		}
		for i, word := range want {
			if !strings.HasPrefix(got[i], word+": ") {
				t.Errorf("%q: %q, want %q", has, got[i], word)
			}
		}
	}
}
