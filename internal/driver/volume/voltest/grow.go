package voltest

import (
	"context"
	"errors"
	"strings"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// grow makes a volume larger and checks what it is then, after a restart too.
func (b *bench) grow(v contract.Volume, size int64) contract.Volume {
	b.Helper()
	got, err := b.Driver().Grow(b.ctx, v.ID, size, nil)
	if err != nil {
		b.Fatalf("grow to %d: %v", size, err)
	}
	b.Intact(b.T, got)
	v.SizeBytes = size
	b.same(got, v)
	b.Reopen(b.T)
	if got, err = b.Driver().Inspect(b.ctx, v.ID); err != nil {
		b.Fatal(err)
	}
	b.same(got, v)
	return got
}

func (b *bench) same(got, want contract.Volume) {
	b.Helper()
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(contract.Volume{}, "AllocatedBytes")); diff != "" {
		b.Fatalf("-want +got\n%s", diff)
	}
}

func grows(b *bench) {
	base := b.Base(b.T, "the operating system")
	v := b.create(contract.Spec{ID: id.New(), SizeBytes: unit.MiB, Base: &base})
	sizes := []int64{unit.MiB + 512, 600 * unit.MiB, 5 * unit.TiB}
	if b.Driver().Capabilities().CopyOnWrite {
		sizes = append(sizes, 64*unit.TiB) // a file of that size not every file system has
	}
	for _, size := range sizes {
		v = b.grow(v, size)
	}
	b.begins(v, "the operating system")
	b.clean(v.ID)
}

func growsToSame(b *bench) {
	v := b.create(empty(unit.GiB))
	v = b.grow(v, unit.GiB)
	called := false
	got, err := b.Driver().Grow(b.ctx, v.ID, unit.GiB, func(context.Context) error { called = true; return nil })
	if err != nil || called {
		b.Fatalf("grow to the size there is: resized? %v; %v", called, err)
	}
	b.same(got, v)
	b.clean(v.ID)
}

func growsByHolder(b *bench) {
	v := b.create(empty(unit.GiB))
	broken := errors.New("the hypervisor does not answer")
	if _, err := b.Driver().Grow(b.ctx, v.ID, 2*unit.GiB, func(context.Context) error { return broken }); !errors.Is(err, broken) {
		b.Fatalf("a holder that fails: %v", err)
	}
	got, err := b.Driver().Inspect(b.ctx, v.ID)
	if err != nil {
		b.Fatal(err)
	}
	b.same(got, v)
	got, err = b.Driver().Grow(b.ctx, v.ID, 2*unit.GiB, func(context.Context) error { return nil })
	if err != nil || got.SizeBytes != 2*unit.GiB {
		b.Fatalf("a holder that grew it: %+v, %v", got, err)
	}
	b.clean(v.ID)
}

func growRefuses(b *bench) {
	v := b.create(empty(unit.GiB))
	for name, c := range map[string]struct {
		id   id.ID
		size int64
		code errs.Code
	}{
		"smaller":           {v.ID, unit.GiB - 512, errs.ShrinkNotAllowed},
		"nothing":           {v.ID, 0, errs.InvalidSize},
		"negative":          {v.ID, -512, errs.InvalidSize},
		"half a sector":     {v.ID, unit.GiB + 256, errs.InvalidSize},
		"beyond everything": {v.ID, 1 << 62, errs.InvalidSize},
		"unknown":           {id.New(), 2 * unit.GiB, errs.NotFound},
	} {
		_, err := b.Driver().Grow(b.ctx, c.id, c.size, nil)
		b.wantCode(err, c.code, name)
	}
	got, err := b.Driver().Inspect(b.ctx, v.ID)
	if err != nil {
		b.Fatal(err)
	}
	b.same(got, v)
	b.Intact(b.T, got)
	b.clean(v.ID)
	if left := strings.Join(b.Leftovers(), " "); left != "" {
		b.Fatalf("left: %s", left)
	}
}
