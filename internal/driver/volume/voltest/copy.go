package voltest

import (
	"context"

	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func (b *bench) copy(from contract.Volume, to id.ID) contract.Volume {
	b.Helper()
	got, err := b.Driver().Copy(b.ctx, to, from.ID)
	if err != nil {
		b.Fatalf("copy: %v", err)
	}
	b.Intact(b.T, got)
	if got.File.Path == from.File.Path {
		b.Fatalf("the copy is the file of %+v", from)
	}
	from.ID, from.File.Path = to, got.File.Path
	b.same(got, from)
	return got
}

func copies(b *bench) {
	base := b.Base(b.T, "the operating system")
	v := b.create(contract.Spec{ID: id.New(), SizeBytes: 3 * unit.GiB, Base: &base})
	c := b.copy(v, id.New())
	// neither knows of the other
	b.grow(c, 4*unit.GiB)
	if got, err := b.Driver().Inspect(b.ctx, v.ID); err != nil || got.SizeBytes != 3*unit.GiB {
		b.Fatalf("growing the copy made of the original %+v, %v", got, err)
	}
	if err := b.Driver().Delete(b.ctx, v.ID); err != nil {
		b.Fatal(err)
	}
	b.Reopen(b.T)
	got, err := b.Driver().Inspect(b.ctx, c.ID)
	if err != nil {
		b.Fatal(err)
	}
	b.Intact(b.T, got)
	b.begins(got, "the operating system")
	b.clean(c.ID)
}

func copiesTwice(b *bench) {
	v := b.create(empty(unit.GiB))
	c := b.copy(v, id.New())
	b.same(b.copy(v, c.ID), c)
	other := b.create(empty(2 * unit.GiB))
	_, err := b.Driver().Copy(b.ctx, c.ID, other.ID)
	b.wantCode(err, errs.AlreadyExists, "a copy of another under the id")
	b.clean(v.ID, c.ID, other.ID)
}

func copyRefuses(b *bench) {
	v := b.create(empty(unit.GiB))
	_, err := b.Driver().Copy(b.ctx, id.New(), id.New())
	b.wantCode(err, errs.NotFound, "a copy of nothing")
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	if c, err := b.Driver().Copy(ctx, id.New(), v.ID); err == nil {
		b.Fatalf("a cancelled copy gave %+v", c)
	}
	b.clean(v.ID)
}
