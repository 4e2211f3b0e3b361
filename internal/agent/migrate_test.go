package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/sparse"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// other is another node that offers some bytes, and takes what it is offered.
type other struct {
	sends []byte
	err   error
	took  bytes.Buffer
}

// Offer implements Neighbours.
func (o *other) Offer(_ id.ID, _ string, serve func(io.Writer) error) (string, error) {
	return "here", serve(&o.took)
}

// Read implements Neighbours.
func (o *other) Land(id.ID, string, func(string) bool, func(context.Context, string, io.ReadWriteCloser)) (string, func(), error) {
	return "", nil, errors.New("it opens no door")
}

func (o *other) Reach(context.Context, Way) (io.ReadWriteCloser, error) {
	return nil, errors.New("it has no door")
}

// Relayed implements Neighbours.
func (o *other) Relayed(string) bool { return false }

// Admit implements Neighbours.
func (o *other) Admit(context.Context, Peer, string, string) error {
	return errors.New("it lets nobody in")
}

// Probe implements Neighbours.
func (o *other) Probe(context.Context, nodelink.ImageSource) error { return o.err }

func (o *other) Read(_ context.Context, _ nodelink.ImageSource, to io.Writer) error {
	if _, err := to.Write(o.sends); err != nil {
		return err
	}
	return o.err
}

func (b *bench) take(step string, volumes ...nodelink.VolumeSpec) error {
	b.t.Helper()
	_, err := b.send(step, &nodelink.TakeVM{Volumes: volumes})
	return err
}

func (b *bench) erase(step string) {
	b.t.Helper()
	if _, err := b.send(step, &nodelink.Erase{Volumes: []id.ID{b.volume}}); err != nil {
		b.t.Fatal(err)
	}
}

// files lists all that lies below the node's folder, but its lock files.
func (b *bench) files() (out []string) {
	b.t.Helper()
	err := filepath.WalkDir(b.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func items(parts ...any) []byte {
	var b bytes.Buffer
	w := itemWriter{to: &b}
	for _, p := range parts {
		switch p := p.(type) {
		case item:
			_ = w.begin(p)
		case string:
			b.WriteString(p)
		case []byte:
			b.Write(p)
		}
	}
	return b.Bytes()
}

func content(s string) []byte {
	var b bytes.Buffer
	_ = sparse.Send(&b, int64(len(s)), func(tell func(int64, []byte) error) error { return tell(0, []byte(s)) })
	return b.Bytes()
}

const simVolume = `{"size_bytes":1073741824}` + "\n"

// What another node sends is taken when it is all of the VM, and nothing else; what is
// not is refused, lies nowhere but where it belongs, and goes with the VM.
func TestTakesNothingButTheVM(t *testing.T) {
	b := newBench(t)
	o := &other{}
	b.neighbours = o
	b.restart()
	want := nodelink.VolumeSpec{ID: b.volume, SizeBytes: unit.GiB}
	vol := item{Kind: itemVolume, ID: b.volume}
	end := item{Kind: itemEnd, Items: 1}
	before := b.files()
	for name, c := range map[string]struct {
		sends []byte
		code  errs.Code
	}{
		"Nothing":          {nil, errs.NodeUnreachable},
		"NoEnd":            {items(vol, simVolume), errs.NodeUnreachable},
		"NoVolume":         {items(item{Kind: itemEnd}), errs.InvalidImage},
		"OtherNumber":      {items(vol, simVolume, item{Kind: itemEnd, Items: 2}), errs.InvalidImage},
		"CutVolume":        {items(vol, simVolume[:10]), errs.HostFailure},
		"AnothersVolume":   {items(item{Kind: itemVolume, ID: id.New()}, simVolume, end), errs.InvalidImage},
		"Twice":            {items(vol, simVolume, vol, simVolume, end), errs.InvalidImage},
		"OtherSize":        {items(vol, strings.Replace(simVolume, "1073741824", "512", 1), end), errs.InvalidImage},
		"UnknownKind":      {items(item{Kind: "socket", Name: "/run/x"}, end), errs.Unsupported},
		"HugeItem":         {binary.BigEndian.AppendUint32(nil, 1<<31), errs.InvalidImage},
		"NoJSON":           {append(binary.BigEndian.AppendUint32(nil, 4), "nope"...), errs.InvalidImage},
		"PathAsName":       {items(item{Kind: itemVariables, Name: "../../etc/passwd", Size: 4}, content("evil"), end), errs.InvalidImage},
		"PathInMemory":     {items(item{Kind: itemMemory, Name: "/../x", Size: 4}, content("evil"), end), errs.InvalidImage},
		"NegativeSize":     {items(item{Kind: itemVariables, Name: "uefi", Size: -1}, content("evil"), end), errs.InvalidImage},
		"TooManyVariables": {items(item{Kind: itemVariables, Name: "uefi", Size: mostVariables + 1}, end), errs.InvalidImage},
		"FileOfOtherSize":  {items(item{Kind: itemVariables, Name: "uefi", Size: 9}, content("evil"), end), errs.NodeUnreachable},
	} {
		b.head.Attempt++
		o.sends = c.sends
		if err := b.take(name, want); !errs.Is(err, c.code) {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
		b.erase("erase " + name)
	}
	b.head.Attempt++
	o.sends, o.err = items(vol, simVolume, end), nil
	if err := b.take("good", want); err != nil {
		t.Fatal(err)
	}
	if v, err := b.agent.cfg.Volumes.Inspect(t.Context(), b.volume); err != nil || v.SizeBytes != unit.GiB {
		t.Errorf("%+v %v", v, err)
	}
	b.erase("erase")
	after := slices.DeleteFunc(b.files(), func(f string) bool { return slices.Contains(before, f) || strings.Contains(f, "records") })
	if len(after) > 0 {
		t.Errorf("left: %v", after)
	}
}

// What an earlier time has left of a VM does not stand for what comes: it goes first.
func TestTakeReplacesWhatIsOld(t *testing.T) {
	b := newBench(t)
	o := &other{sends: items(item{Kind: itemVolume, ID: b.volume}, simVolume, item{Kind: itemEnd, Name: "uefi", Items: 1})}
	b.neighbours = o
	b.restart()
	ctx := t.Context()
	for _, v := range []id.ID{b.volume, b.vm} {
		if _, err := b.agent.cfg.Volumes.Create(ctx, volume.Spec{ID: v, SizeBytes: 512}); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{b.agent.savedFile(b.vm), b.agent.savedFile(b.vm) + ".json", b.agent.variables(b.vm, "uefi")} {
		if err := os.WriteFile(f, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.take("take", nodelink.VolumeSpec{ID: b.volume, SizeBytes: unit.GiB}); err != nil {
		t.Fatal(err)
	}
	v, err := b.agent.cfg.Volumes.Inspect(ctx, b.volume)
	_, seed := b.agent.cfg.Volumes.Inspect(ctx, b.vm)
	if err != nil || v.SizeBytes != unit.GiB || !errs.Is(seed, errs.NotFound) || b.agent.saved(b.vm) || !gone(b.agent.variables(b.vm, "uefi")) {
		t.Errorf("%+v %v, seed %v", v, err, seed)
	}
	if rec := b.agent.guest(b.vm).snapshot(); !slices.Equal(rec.Variables, []string{"uefi"}) || !slices.Contains(rec.Volumes, b.volume) || rec.Erased {
		t.Errorf("%+v", rec)
	}
}

// A VM that has a process here is neither given nor taken, and goes on.
func TestRunningVMIsNotCopied(t *testing.T) {
	b := newBench(t)
	b.neighbours = &other{}
	b.restart()
	b.launch()
	if err := b.take("take"); !errs.Is(err, errs.InvalidState) {
		t.Errorf("taken: %v", err)
	}
	if _, err := b.send("offer", &nodelink.OfferVM{To: id.New()}); !errs.Is(err, errs.InvalidState) || b.executing() != 1 {
		t.Errorf("offered: %v, %d execute", err, b.executing())
	}
}

// FuzzTakeVM: another node may send anything; it is taken, or refused with a code.
func FuzzTakeVM(f *testing.F) {
	v := id.New()
	f.Add(items(item{Kind: itemVolume, ID: v}, simVolume, item{Kind: itemEnd, Items: 1}))
	f.Add(items(item{Kind: itemVariables, Name: "uefi", Size: 4}, content("some"), item{Kind: itemMemory, Size: 4}, content("more"), item{Kind: itemEnd}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sends []byte) {
		b := newBench(t)
		b.volume, b.neighbours = v, &other{sends: sends, err: errors.New("cut")}
		b.restart()
		before := len(b.files())
		err := b.take("take", nodelink.VolumeSpec{ID: v, SizeBytes: unit.GiB})
		if err != nil && errs.CodeOf(err) == errs.Internal {
			t.Errorf("no code: %v", err)
		}
		b.erase("erase")
		if n := len(b.files()); n > before+1 { // the record of the fence
			t.Errorf("%d files, were %d", n, before)
		}
	})
}
