// Package near finds the word that somebody probably meant.
package near

import (
	"iter"
	"strings"
)

// Word gives the word a typing error away from what was written: at most a third
// of its letters differ. Empty when there is none.
func Word(wrote string, words iter.Seq[string]) string {
	best, least := "", len(wrote)/3+2
	for w := range words {
		if n := distance(strings.ToLower(wrote), w); n < least || (n == least && w < best) {
			best, least = w, n
		}
	}
	if least > len(wrote)/3+1 {
		return ""
	}
	return best
}

// Hint is Word as the end of a sentence, and empty when there is none.
func Hint(wrote string, words iter.Seq[string]) string {
	if w := Word(wrote, words); w != "" {
		return `; did you mean "` + w + `"?`
	}
	return ""
}

// distance is Levenshtein's, over bytes, of inputs cut to 64.
func distance(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			prev, row[j+1] = row[j+1], min(prev+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
