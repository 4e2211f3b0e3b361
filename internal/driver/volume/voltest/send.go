package voltest

import (
	"bufio"
	"bytes"
	"context"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/sparse"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func (b *bench) send(v id.ID) []byte {
	b.Helper()
	var out bytes.Buffer
	if err := b.Driver().Send(b.ctx, v, &out); err != nil {
		b.Fatalf("send: %v", err)
	}
	return out.Bytes()
}

func stream(parts ...[]byte) *bufio.Reader {
	return bufio.NewReaderSize(bytes.NewReader(bytes.Join(parts, nil)), sparse.MaxPiece)
}

// sends: what one driver sent another makes the same of, on a base of its own, and takes
// no byte of what follows.
func sends(b *bench) {
	other := b.Another(b.T)
	here, there := b.Base(b.T, "the operating system"), other.Base(b.T, "the operating system")
	v := b.grow(b.create(contract.Spec{ID: id.New(), SizeBytes: 3 * unit.GiB, Base: &here}), 4*unit.GiB)
	seed := b.written(bytes.Repeat([]byte("seed"), 512))
	sent, sentSeed := b.send(v.ID), b.send(seed.ID)
	if len(sent) > 4<<20 {
		b.Fatalf("a volume of no content takes %d bytes on its way", len(sent))
	}
	from := stream(sent, sentSeed, []byte("rest"))
	got := b.received(other, contract.Spec{ID: v.ID, SizeBytes: 4 * unit.GiB, Base: &there}, from)
	b.stands(other, got, there)
	gotSeed := b.received(other, contract.Spec{ID: seed.ID}, from)
	if !gotSeed.ReadOnly || gotSeed.SizeBytes != seed.SizeBytes {
		b.Fatalf("received %+v", gotSeed)
	}
	if rest, err := from.Peek(4); err != nil || string(rest) != "rest" {
		b.Fatalf("what follows is %q %v", rest, err)
	}
	b.stay(other, got, gotSeed)
	b.clean(v.ID, seed.ID)
}

// stands: a volume of 4 GiB that was received stands on the base there.
func (b *bench) stands(at Harness, got contract.Volume, base contract.Base) {
	b.Helper()
	at.Intact(b.T, got)
	if got.SizeBytes != 4*unit.GiB || b.Driver().Capabilities().CopyOnWrite && (got.Backing == nil || *got.Backing != base.File) {
		b.Fatalf("received %+v", got)
	}
	if b.Driver().Capabilities().Content && !strings.HasPrefix(at.Begins(b.T, got, 20), "the operating system") {
		b.Fatal("it does not show its base")
	}
}

func (b *bench) received(at Harness, s contract.Spec, from *bufio.Reader) contract.Volume {
	b.Helper()
	got, err := at.Driver().Receive(b.ctx, s, from)
	if err != nil || got.ID != s.ID {
		b.Fatalf("received %+v: %v", got, err)
	}
	return got
}

// stay: volumes are the same after a restart, and gone when they are deleted.
func (b *bench) stay(at Harness, all ...contract.Volume) {
	b.Helper()
	at.Reopen(b.T)
	for _, want := range all {
		if again, err := at.Driver().Inspect(b.ctx, want.ID); err != nil || !cmp.Equal(again, want) {
			b.Fatalf("after a restart %+v %v, was %+v", again, err, want)
		}
		if err := at.Driver().Delete(b.ctx, want.ID); err != nil {
			b.Fatal(err)
		}
	}
	if left := at.Leftovers(); len(left) > 0 {
		b.Fatalf("left: %v", left)
	}
}

// written makes a volume that guests only read.
func (b *bench) written(content []byte) contract.Volume {
	b.Helper()
	v, err := b.Driver().Write(b.ctx, id.New(), content)
	if err != nil {
		b.Fatal(err)
	}
	return v
}

// receiveRefuses: whatever is not the volume that was promised, whole, leaves nothing.
func receiveRefuses(b *bench) {
	v := b.create(empty(unit.GiB))
	seed := b.written(bytes.Repeat([]byte("seed"), 512))
	sent, sentSeed := b.send(v.ID), b.send(seed.ID)
	base := b.Base(b.T, "x")
	for name, c := range map[string]struct {
		spec contract.Spec
		from []byte
	}{
		"another size":        {empty(2 * unit.GiB), sent},
		"a content for one":   {empty(unit.GiB), sentSeed},
		"one for a content":   {contract.Spec{ID: id.New()}, sent},
		"nothing":             {empty(unit.GiB), nil},
		"something else":      {empty(unit.GiB), bytes.Repeat([]byte("something else\n"), 4096)},
		"no id":               {contract.Spec{SizeBytes: unit.GiB}, sent},
		"a smaller than base": {contract.Spec{ID: id.New(), SizeBytes: 512, Base: &base}, sent},
	} {
		if got, err := b.Driver().Receive(b.ctx, c.spec, stream(c.from)); err == nil {
			b.Errorf("%s was received: %+v", name, got)
		}
	}
	for _, at := range []int{0, 1, len(sent) / 2, len(sent) - 1} {
		if got, err := b.Driver().Receive(b.ctx, empty(unit.GiB), stream(sent[:at])); err == nil {
			b.Errorf("cut at %d of %d it was received: %+v", at, len(sent), got)
		}
	}
	_, err := b.Driver().Receive(b.ctx, contract.Spec{ID: v.ID, SizeBytes: unit.GiB}, stream(sent))
	b.wantCode(err, errs.AlreadyExists, "a volume that is there")
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	if got, err := b.Driver().Receive(ctx, empty(unit.GiB), stream(sent)); err == nil {
		b.Errorf("a cancelled call gave %+v", got)
	}
	b.wantCode(b.Driver().Send(b.ctx, id.New(), &bytes.Buffer{}), errs.NotFound, "what is not there")
	b.clean(v.ID, seed.ID)
}
