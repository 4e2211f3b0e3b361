package migration

import (
	"strconv"
	"strings"
)

// Older tells whether a version of a hypervisor, such as "7.2.22", is older than
// another. What follows its numbers is a packager's, and does not count; a version that
// is unknown is neither.
func Older(a, b string) bool {
	x, y := numbers(a), numbers(b)
	if len(x) == 0 || len(y) == 0 {
		return false
	}
	for i := range max(len(x), len(y)) {
		if d := at(x, i) - at(y, i); d != 0 {
			return d < 0
		}
	}
	return false
}

func at(n []int, i int) int {
	if i < len(n) {
		return n[i]
	}
	return 0
}

// numbers reads the leading dotted numbers of a version.
func numbers(s string) (out []int) {
	for part := range strings.SplitSeq(s, ".") {
		digits := len(part) - len(strings.TrimLeft(part, "0123456789"))
		n, err := strconv.Atoi(part[:digits])
		if err != nil {
			break
		}
		if out = append(out, n); digits < len(part) {
			break
		}
	}
	return out
}
