package voltest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// content is one of n sectors that begins with a text.
func content(text string, n int) []byte {
	return append([]byte(text), make([]byte, n*512-len(text))...)
}

func (b *bench) write(v id.ID, c []byte) contract.Volume {
	b.Helper()
	got, err := b.Driver().Write(b.ctx, v, c)
	if err != nil {
		b.Fatalf("write: %v", err)
	}
	if got.ID != v || !got.ReadOnly || got.SizeBytes != int64(len(c)) || got.File.Format != "raw" || got.Backing != nil {
		b.Fatalf("wrote %+v", got)
	}
	begin := strings.TrimRight(string(c[:min(len(c), 20)]), "\x00")
	b.begins(got, begin)
	return got
}

func writes(b *bench) {
	v := id.New()
	b.write(v, content("one", 4))
	b.Reopen(b.T)
	for _, c := range [][]byte{content("one", 4), content("two", 700), content("three", 1)} {
		w := b.write(v, c)
		b.Reopen(b.T)
		got, err := b.Driver().Inspect(b.ctx, v)
		if err != nil {
			b.Fatal(err)
		}
		b.same(got, w)
		if all, err := b.Driver().List(b.ctx); err != nil || len(all) != 1 || !all[0].ReadOnly {
			b.Fatalf("listed %+v, %v", all, err)
		}
	}
	b.clean(v)
}

// Who has a content open keeps reading it when another takes its place.
func writesAnew(b *bench) {
	v := id.New()
	was := b.write(v, content("one", 1))
	open, err := os.Open(was.File.Path)
	if errors.Is(err, fs.ErrNotExist) || !b.Driver().Capabilities().Content { // no file of this host, or nothing in it
		b.clean(v)
		return
	}
	if err != nil {
		b.Fatal(err)
	}
	defer open.Close()
	b.write(v, content("two", 1))
	head := make([]byte, 3)
	if _, err := open.Read(head); err != nil || string(head) != "one" {
		b.Fatalf("who had it open reads %q, %v", head, err)
	}
	b.clean(v)
}

func writeRefuses(b *bench) {
	disk, seed := b.create(empty(unit.MiB)), b.write(id.New(), content("seed", 2))
	for name, c := range map[string]struct {
		id   id.ID
		with []byte
		code errs.Code
	}{
		"no id":           {id.Nil, content("x", 1), errs.InvalidID},
		"nothing":         {id.New(), nil, errs.InvalidSize},
		"half a sector":   {id.New(), make([]byte, 256), errs.InvalidSize},
		"too much":        {id.New(), make([]byte, contract.MaxWrite+512), errs.InvalidSize},
		"a guest's disk":  {disk.ID, content("x", 1), errs.AlreadyExists},
		"a seed, nothing": {seed.ID, nil, errs.InvalidSize},
	} {
		_, err := b.Driver().Write(b.ctx, c.id, c.with)
		b.wantCode(err, c.code, name)
	}
	_, err := b.Driver().Create(b.ctx, contract.Spec{ID: seed.ID, SizeBytes: seed.SizeBytes})
	b.wantCode(err, errs.AlreadyExists, "create under the id of one that was written")
	_, err = b.Driver().Copy(b.ctx, id.New(), seed.ID)
	b.wantCode(err, errs.Unsupported, "copy of one that was written")
	_, err = b.Driver().Grow(b.ctx, seed.ID, unit.MiB, nil)
	b.wantCode(err, errs.Unsupported, "grow of one that was written")
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	if v, err := b.Driver().Write(ctx, id.New(), content("x", 1)); err == nil {
		b.Fatalf("a cancelled write gave %+v", v)
	}
	b.begins(seed, "seed")
	b.clean(disk.ID, seed.ID)
}
