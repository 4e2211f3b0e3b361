// Package voltest is the conformance suite of volume drivers: what the contract
// says, as tests.
package voltest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Harness is one place for volumes with one open driver, made for one test. It
// cleans up after itself by t.Cleanup.
type Harness interface {
	// Driver is the driver now open.
	Driver() contract.Driver
	// Reopen closes it and opens another one on the same place.
	Reopen(t *testing.T)
	// Base gives an image to make volumes from, of 1 MiB, beginning with the text.
	Base(t *testing.T, text string) contract.Base
	// Begins reads the first bytes of a volume, as a guest would see them. It is not
	// called for a driver whose volumes hold nothing.
	Begins(t *testing.T, v contract.Volume, n int) string
	// Intact checks the volume's image by other means than the driver.
	Intact(t *testing.T, v contract.Volume)
	// Another makes a place of the same kind.
	Another(t *testing.T) Harness
	// Leftovers lists what the place holds; empty means clean.
	Leftovers() []string
}

const patience = 30 * time.Second

// Exercise runs the whole suite. newHarness is called once per case.
func Exercise(t *testing.T, newHarness func(t *testing.T) Harness) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*bench)
	}{
		{"Create makes an empty volume", createsEmpty},
		{"Create makes a volume that shows its base", createsFromBase},
		{"Create again gives the volume there is", createsTwice},
		{"Create of another volume under an id is refused", createOther},
		{"Create many times at once makes one", createsAtOnce},
		{"Create refuses impossible volumes and leaves nothing", refuses},
		{"Create of a cancelled caller leaves nothing", createCancelled},
		{"Copy makes another with the same content", copies},
		{"Copy again gives the copy there is", copiesTwice},
		{"Copy refuses and leaves nothing", copyRefuses},
		{"Grow makes larger and keeps what is there", grows},
		{"Grow to the size there is changes nothing", growsToSame},
		{"Grow by who has the volume open takes note", growsByHolder},
		{"Grow refuses impossible sizes and changes nothing", growRefuses},
		{"Write makes a volume of a content, and gives it another", writes},
		{"Write leaves what is read as it is", writesAnew},
		{"Write refuses and changes nothing", writeRefuses},
		{"Send gives what Receive makes the same volume of", sends},
		{"Receive refuses what was not promised and leaves nothing", receiveRefuses},
		{"Delete removes, and may be repeated", deletes},
		{"List gives all in order", lists},
		{"Volumes survive a restart", survives},
		{"An empty volume costs next to nothing where that is promised", thin},
		{"Usage tells the place's size", usage},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c.run(&bench{T: t, Harness: newHarness(t), ctx: ctx})
		})
	}
}

type bench struct {
	*testing.T
	Harness
	ctx context.Context
}

func (b *bench) create(s contract.Spec) contract.Volume {
	b.Helper()
	v, err := b.Driver().Create(b.ctx, s)
	if err != nil {
		b.Fatalf("create: %v", err)
	}
	b.Intact(b.T, v)
	return v
}

// begins looks at what a guest would see first, where volumes hold anything.
func (b *bench) begins(v contract.Volume, want string) {
	b.Helper()
	if !b.Driver().Capabilities().Content {
		return
	}
	if got := b.Begins(b.T, v, len(want)); got != want {
		b.Fatalf("volume %s begins with %q, not %q", v.ID, got, want)
	}
}

func empty(size int64) contract.Spec { return contract.Spec{ID: id.New(), SizeBytes: size} }

func (b *bench) wantCode(err error, code errs.Code, what string) {
	b.Helper()
	if !errs.Is(err, code) {
		b.Fatalf("%s: got %v, want %s", what, err, code)
	}
}

// clean deletes volumes and expects an empty place.
func (b *bench) clean(ids ...id.ID) {
	b.Helper()
	for _, v := range ids {
		if err := b.Driver().Delete(b.ctx, v); err != nil {
			b.Fatalf("delete: %v", err)
		}
	}
	if left := b.Leftovers(); len(left) > 0 {
		b.Fatalf("the place still holds:\n%s", strings.Join(left, "\n"))
	}
}

func createsEmpty(b *bench) {
	for _, size := range []int64{512, unit.MiB, 3*unit.GiB + 512, 2 * unit.TiB} {
		s := empty(size)
		v := b.create(s)
		if v.ID != s.ID || v.SizeBytes != size || v.Backing != nil || v.File.Path == "" {
			b.Fatalf("created %+v from %+v", v, s)
		}
		if got, err := b.Driver().Inspect(b.ctx, s.ID); err != nil || !cmp.Equal(got, v) {
			b.Fatalf("inspect gave %+v, %v; create gave %+v", got, err, v)
		}
		b.begins(v, strings.Repeat("\x00", 8))
		b.clean(s.ID)
	}
}

func createsFromBase(b *bench) {
	base := b.Base(b.T, "the operating system")
	s := contract.Spec{ID: id.New(), SizeBytes: 4 * unit.MiB, Base: &base}
	v := b.create(s)
	if b.Driver().Capabilities().CopyOnWrite && (v.Backing == nil || *v.Backing != base.File) {
		b.Fatalf("the volume %+v does not name its base %+v", v, base.File)
	}
	b.begins(v, "the operating system")
	b.clean(s.ID)
}

func createsTwice(b *bench) {
	base := b.Base(b.T, "x")
	s := contract.Spec{ID: id.New(), SizeBytes: 4 * unit.MiB, Base: &base}
	first := b.create(s)
	if second := b.create(s); !cmp.Equal(first, second) {
		b.Fatalf("the second create differs:\n%s", cmp.Diff(first, second))
	}
	b.clean(s.ID)
}

func createOther(b *bench) {
	one, two := b.Base(b.T, "one"), b.Base(b.T, "two")
	s := contract.Spec{ID: id.New(), SizeBytes: 4 * unit.MiB, Base: &one}
	before := b.create(s)
	larger, other, without := s, s, s
	larger.SizeBytes *= 2
	other.Base = &two
	without.Base = nil
	for _, o := range []contract.Spec{larger, other, without} {
		_, err := b.Driver().Create(b.ctx, o)
		b.wantCode(err, errs.AlreadyExists, "create of another volume")
	}
	if got, err := b.Driver().Inspect(b.ctx, s.ID); err != nil || !cmp.Equal(got, before) {
		b.Fatalf("the refused calls left %+v, %v", got, err)
	}
	b.clean(s.ID)
}

func createsAtOnce(b *bench) {
	s := empty(unit.GiB)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := b.Driver().Create(b.ctx, s); err != nil {
				b.Errorf("create: %v", err)
			}
		})
	}
	wg.Wait()
	if all, err := b.Driver().List(b.ctx); err != nil || len(all) != 1 {
		b.Fatalf("there are %d volumes, %v", len(all), err)
	}
	b.clean(s.ID)
}

func refuses(b *bench) {
	base := b.Base(b.T, "x")
	missing := base
	missing.File.Path += ".missing"
	for name, c := range map[string]struct {
		spec contract.Spec
		code errs.Code
	}{
		"no id":             {contract.Spec{SizeBytes: unit.MiB}, errs.InvalidID},
		"no size":           {empty(0), errs.InvalidSize},
		"negative size":     {empty(-512), errs.InvalidSize},
		"half a sector":     {empty(unit.MiB + 256), errs.InvalidSize},
		"beyond everything": {empty(1 << 62), errs.InvalidSize},
		"less than base":    {contract.Spec{ID: id.New(), SizeBytes: base.VirtualSize - 512, Base: &base}, errs.InvalidSize},
		"missing base":      {contract.Spec{ID: id.New(), SizeBytes: unit.GiB, Base: &missing}, errs.NotFound},
		"unknown format": {contract.Spec{ID: id.New(), SizeBytes: unit.GiB, Base: &contract.Base{
			File: withFormat(base, "vmdk").File, VirtualSize: base.VirtualSize,
		}}, errs.InvalidField},
	} {
		if c.spec.Base == &missing && !b.Driver().Capabilities().Content {
			continue // it does not look into its bases: simulated hosts have no images
		}
		_, err := b.Driver().Create(b.ctx, c.spec)
		if !errs.Is(err, c.code) {
			b.Errorf("%s: got %v, want %s", name, err, c.code)
		}
	}
	b.clean()
}

func withFormat(b contract.Base, f string) contract.Base {
	b.File.Format = f
	return b
}

func createCancelled(b *bench) {
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	s := empty(unit.MiB)
	if v, err := b.Driver().Create(ctx, s); err == nil {
		b.Fatalf("a cancelled create gave %+v", v)
	}
	_, err := b.Driver().Inspect(b.ctx, s.ID)
	b.wantCode(err, errs.NotFound, "inspect")
	b.clean()
}

func deletes(b *bench) {
	one, two := empty(unit.MiB), empty(unit.MiB)
	b.create(one)
	b.create(two)
	for range 2 {
		if err := b.Driver().Delete(b.ctx, one.ID); err != nil {
			b.Fatal(err)
		}
	}
	_, err := b.Driver().Inspect(b.ctx, one.ID)
	b.wantCode(err, errs.NotFound, "inspect of a deleted volume")
	if _, err := b.Driver().Inspect(b.ctx, two.ID); err != nil {
		b.Fatalf("deleting one volume took another: %v", err)
	}
	b.create(one)
	b.clean(one.ID, two.ID, id.New())
}

func lists(b *bench) {
	var want []id.ID
	for range 5 {
		s := empty(unit.MiB)
		b.create(s)
		want = append(want, s.ID)
	}
	slices.SortFunc(want, func(a, b id.ID) int { return strings.Compare(a.String(), b.String()) })
	all, err := b.Driver().List(b.ctx)
	if err != nil {
		b.Fatal(err)
	}
	var got []id.ID
	for _, v := range all {
		got = append(got, v.ID)
	}
	if !slices.Equal(got, want) {
		b.Fatalf("listed %v, want %v", got, want)
	}
	b.clean(want...)
}

func survives(b *bench) {
	base := b.Base(b.T, "kept")
	s := contract.Spec{ID: id.New(), SizeBytes: 2 * unit.MiB, Base: &base}
	before := b.create(s)
	b.Reopen(b.T)
	got, err := b.Driver().Inspect(b.ctx, s.ID)
	if err != nil || !cmp.Equal(got, before, cmpopts.IgnoreFields(contract.Volume{}, "AllocatedBytes")) {
		b.Fatalf("after a restart there is %+v, %v; before it was %+v", got, err, before)
	}
	b.clean(s.ID)
}

func thin(b *bench) {
	s := empty(unit.TiB)
	v := b.create(s)
	if b.Driver().Capabilities().Thin && v.AllocatedBytes > unit.MiB {
		b.Fatalf("an empty volume occupies %d bytes", v.AllocatedBytes)
	}
	b.clean(s.ID)
}

func usage(b *bench) {
	u, err := b.Driver().Usage(b.ctx)
	if err != nil || u.TotalBytes <= 0 || u.FreeBytes < 0 || u.FreeBytes > u.TotalBytes {
		b.Fatalf("usage is %+v, %v", u, err)
	}
}
