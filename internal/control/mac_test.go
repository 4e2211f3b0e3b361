package control_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"testing"

	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// repeats says the same three bytes a number of times, and then something else.
func repeats(b [3]byte, times int, then io.Reader) io.Reader {
	return io.MultiReader(bytes.NewReader(bytes.Repeat(b[:], times)), then)
}

type always [3]byte

// Read implements io.Reader.
func (a always) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = a[i%3]
	}
	return len(p), nil
}

// An address that is drawn and taken is drawn again, in creations, in clones, and for
// the second interface of one VM; where no free one comes, nothing is made.
func TestAddressesThatAreTakenAreDrawnAgain(t *testing.T) {
	c := controltest.New(t, 1)
	one, two := [3]byte{1, 2, 3}, [3]byte{4, 5, 6}
	c.Random = repeats(one, 12, rand.Reader)
	n := c.NewVM("a", false)
	n.NICs = []vm.NICSpec{{}, {}}
	make1(t, c, n)
	a := view(t, c, "a").NICs
	if a[0].MAC != "02:4e:43:01:02:03" || a[1].MAC == a[0].MAC {
		t.Errorf("%+v", a)
	}
	c.Random = repeats(one, 9, always(two))
	n.Name, n.NICs = "b", n.NICs[:1]
	make1(t, c, n)
	if got := view(t, c, "b").NICs[0].MAC; got != "02:4e:43:04:05:06" {
		t.Errorf("drawn again: %s", got)
	}
	c.Random = repeats(one, 7, repeats(two, 8, rand.Reader))
	_, err := clone(t, c, "a", "d")
	drive(t, c, err)
	for i, got := range view(t, c, "d").NICs {
		if got.MAC == "" || got.MAC == a[0].MAC || got.MAC == a[1].MAC || got.MAC == "02:4e:43:04:05:06" {
			t.Errorf("interface %d of the clone: %s", i, got.MAC)
		}
	}
	c.Random = always(one)
	n.Name = "e"
	if _, err := c.Service.CreateVM(t.Context(), controltest.Admin(), n); !errs.Is(err, errs.NoSpace) {
		t.Errorf("all that come are taken: %v", err)
	}
	if _, err := clone(t, c, "b", "e"); !errs.Is(err, errs.NoSpace) {
		t.Errorf("of a clone: %v", err)
	}
	if _, err := c.Service.VM(t.Context(), "e"); !errs.Is(err, errs.NotFound) {
		t.Errorf("what was refused is there: %v", err)
	}
}
