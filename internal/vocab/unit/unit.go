// Package unit reads and prints sizes. Sizes are bytes, as integers,
// everywhere; text such as "2GiB" exists only at the edges.
package unit

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Binary multiples of a byte (IEC 80000-13).
const (
	KiB int64 = 1 << 10
	MiB int64 = 1 << 20
	GiB int64 = 1 << 30
	TiB int64 = 1 << 40
	PiB int64 = 1 << 50
)

var suffixes = map[string]int64{
	"": 1, "B": 1,
	"KiB": KiB, "MiB": MiB, "GiB": GiB, "TiB": TiB, "PiB": PiB,
}

// ParseBytes reads "1073741824", "512MiB" or "2 GiB". Only the binary suffixes
// are taken: "2GB" and "1.5G" mean different things to different people and are
// refused with the spelling that means one thing.
func ParseBytes(s string) (int64, error) {
	t := strings.TrimSpace(s)
	i := 0
	for i < len(t) && t[i] >= '0' && t[i] <= '9' {
		i++
	}
	mult, ok := suffixes[strings.TrimSpace(t[i:])]
	if i == 0 || !ok {
		return 0, bad(s)
	}
	n, err := strconv.ParseInt(t[:i], 10, 64)
	if err != nil || n > math.MaxInt64/mult {
		return 0, bad(s)
	}
	return n * mult, nil
}

func bad(s string) error {
	return errs.New(errs.InvalidSize, "%q is not a size: write whole bytes or one of KiB, MiB, GiB, TiB, as in 512MiB", errs.Clip(s))
}

// FormatBytes prints n with the largest binary suffix that loses at most one
// decimal, as in "1.5 GiB".
func FormatBytes(n int64) string {
	for _, s := range []struct {
		name string
		mult int64
	}{{"PiB", PiB}, {"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}} {
		if n >= s.mult {
			v := strconv.FormatFloat(float64(n)/float64(s.mult), 'f', 1, 64)
			return strings.TrimSuffix(v, ".0") + " " + s.name
		}
	}
	return fmt.Sprintf("%d B", n)
}
