package unit

import (
	"strconv"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
)

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1": 1, "1073741824": GiB, "512MiB": 512 * MiB, "2 GiB": 2 * GiB, " 7B ": 7, "1KiB": KiB, "3TiB": 3 * TiB, "1PiB": PiB,
		"8191PiB": 8191 * PiB, "9223372036854775807": 1<<63 - 1, "007": 7,
	} {
		if got, err := ParseBytes(in); err != nil || got != want {
			t.Errorf("%q: %d %v, want %d", in, got, err, want)
		}
	}
	for _, bad := range []string{
		"", " ", "GiB", "-1", "+1", "1.5G", "1.5GiB", "2GB", "2G", "2gib", "2GIB", "1 GiB x", "0x10", "1e9", "9223372036854775808", "8192PiB", "99999999999999999999GiB", "1_000", "١",
	} {
		if got, err := ParseBytes(bad); !errs.Is(err, errs.InvalidSize) {
			t.Errorf("%q: %d %v", bad, got, err)
		}
	}
}

func TestFormatBytes(t *testing.T) {
	for in, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", KiB: "1 KiB", 1536: "1.5 KiB", GiB: "1 GiB", 2*GiB + 512*MiB: "2.5 GiB", TiB: "1 TiB", PiB: "1 PiB", 1<<63 - 1: "8192 PiB",
	} {
		if got := FormatBytes(in); got != want {
			t.Errorf("%d: %q, want %q", in, got, want)
		}
	}
}

// What is printed of a whole size is read back as the same size.
func TestRoundTrip(t *testing.T) {
	for _, m := range []int64{KiB, MiB, GiB, TiB, PiB} {
		for _, n := range []int64{1, 2, 512, 1000} {
			if got, err := ParseBytes(FormatBytes(n * m)); err != nil || got != n*m {
				t.Errorf("%d: %q is read as %d %v", n*m, FormatBytes(n*m), got, err)
			}
		}
	}
}

// What is taken as a size is one, and is printed close to what it is.
func FuzzParseBytes(f *testing.F) {
	for _, s := range []string{"1073741824", "512MiB", "2 GiB", "8192PiB", "1.5G", "-1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseBytes(s)
		if err != nil {
			if !errs.Is(err, errs.InvalidSize) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if n < 0 || FormatBytes(n) == "" {
			t.Errorf("%q is read as %d, printed as %q", s, n, FormatBytes(n))
		}
		if again, err := ParseBytes(strconv.FormatInt(n, 10)); err != nil || again != n {
			t.Errorf("%q is read as %d, and that as %d, %v", s, n, again, err)
		}
	})
}
