package manifest

import (
	"fmt"
	"slices"
	"strings"
)

// around is how many equal lines stand around a difference.
const around = 3

// edit is one line of a comparison.
type edit struct {
	op   byte // ' ', '-' or '+'
	text string
}

// Diff gives the unified diff of two texts; empty when they are equal.
func Diff(beforeName, afterName, before, after string) string {
	if before == after {
		return ""
	}
	edits := compare(splitLines(before), splitLines(after))
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s\n", beforeName, afterName)
	for from := 0; from < len(edits); {
		from = nextChange(edits, from)
		if from == len(edits) {
			break
		}
		from = hunk(&b, edits, from)
	}
	return b.String()
}

func splitLines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

func nextChange(edits []edit, from int) int {
	for from < len(edits) && edits[from].op == ' ' {
		from++
	}
	return from
}

// hunk writes the changes that begin at first and tells where the rest begins.
func hunk(b *strings.Builder, edits []edit, first int) int {
	end := first
	for next := first; next < len(edits) && next-end <= 2*around; next = nextChange(edits, next) {
		for next < len(edits) && edits[next].op != ' ' {
			next++
		}
		end = next
	}
	start, stop := max(first-around, 0), min(end+around, len(edits))
	before, after := 1, 1
	for _, e := range edits[:start] {
		before, after = before+lines(e, '-'), after+lines(e, '+')
	}
	wasLines, isLines := 0, 0
	for _, e := range edits[start:stop] {
		wasLines, isLines = wasLines+lines(e, '-'), isLines+lines(e, '+')
	}
	fmt.Fprintf(b, "@@ -%s +%s @@\n", span(before, wasLines), span(after, isLines))
	for _, e := range edits[start:stop] {
		fmt.Fprintf(b, "%c%s\n", e.op, e.text)
	}
	return stop
}

// lines tells whether a line is on a side, as a number.
func lines(e edit, side byte) int {
	if e.op == ' ' || e.op == side {
		return 1
	}
	return 0
}

// span is a range as POSIX's diff -u writes it.
func span(start, n int) string {
	switch n {
	case 0:
		return fmt.Sprintf("%d,0", start-1)
	case 1:
		return fmt.Sprint(start)
	default:
		return fmt.Sprintf("%d,%d", start, n)
	}
}

// compare finds the longest common sequence of lines.
func compare(a, b []string) []edit {
	common := commons(a, b)
	var out []edit
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch {
		case a[i] == b[j]:
			out = append(out, edit{' ', a[i]})
			i, j = i+1, j+1
		case common[i+1][j] >= common[i][j+1]:
			out = append(out, edit{'-', a[i]})
			i++
		default:
			out = append(out, edit{'+', b[j]})
			j++
		}
	}
	for _, line := range a[i:] {
		out = append(out, edit{'-', line})
	}
	for _, line := range b[j:] {
		out = append(out, edit{'+', line})
	}
	return out
}

// commons gives the length of the longest common sequence behind each pair of
// lines. Documents are short: a table of all pairs costs little.
func commons(a, b []string) [][]int {
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i, x := range slices.Backward(a) {
		for j, y := range slices.Backward(b) {
			if x == y {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	return common
}
