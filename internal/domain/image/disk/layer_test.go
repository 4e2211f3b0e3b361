package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// unzstd unpacks as agents do.
func unzstd(p, packed []byte) error {
	d, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = io.ReadFull(d, p)
	return err
}

// layer opens a file as a layer.
func layer(t *testing.T, path string, below Layer) *QCOW2 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	q, err := OpenQCOW2(f, info.Size(), below, unzstd)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// A disk in layers, as QEMU writes them in all forms, is flattened to what QEMU reads
// from it.
func TestFlatten(t *testing.T) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	content := make([]byte, 20*unit.MiB)
	for i := range 40 {
		copy(content[i*500*1024:], words(i*i*200))
	}
	if err := os.WriteFile(raw, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, opts := range []string{"cluster_size=64k", "compat=0.10", "cluster_size=512", "cluster_size=2M", "extended_l2=on", "extended_l2=on,cluster_size=16k", "lazy_refcounts=on", "compression_type=zstd", "compression_type=zstd,cluster_size=512", "compression_type=zstd,cluster_size=2M", "compression_type=zstd,extended_l2=on"} {
		for _, packed := range []bool{false, true} {
			t.Run(fmt.Sprint(opts, packed), func(t *testing.T) {
				base, top := filepath.Join(dir, fmt.Sprint("base", i, packed)), filepath.Join(dir, fmt.Sprint("top", i, packed))
				args := []string{"convert", "-f", "raw", "-O", "qcow2", "-o", opts, raw, base}
				if packed {
					args = append([]string{"convert", "-c"}, args[1:]...)
				}
				qemuImg(t, args...)
				qemuImg(t, "create", "-q", "-f", "qcow2", "-o", opts+",backing_file="+base+",backing_fmt=qcow2", top, "300M")
				for _, do := range []string{"write -P 7 1M 100k", "write -z 3M 1M", "write -P 9 1234567 333", "write -P 3 280M 5000", "discard 5M 64k", "write -P 0 9M 64k"} {
					qemuIO(t, top, do)
				}
				var out memory
				l := layer(t, top, layer(t, base, nil))
				w := NewWriter(&out, l.Bytes())
				if err := Flatten(l, w.Tell); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Close(); err != nil {
					t.Fatal(err)
				}
				ours := top + ".ours"
				if err := os.WriteFile(ours, out.b, 0o600); err != nil {
					t.Fatal(err)
				}
				qemuImg(t, "check", "-q", "-f", "qcow2", ours)
				qemuImg(t, "compare", "-q", "-f", "qcow2", "-F", "qcow2", top, ours)
			})
		}
	}
	// on a raw base, larger than the layer and smaller
	for _, size := range []string{"10M", "700M"} {
		top := filepath.Join(dir, "onraw"+size)
		qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "backing_file="+raw+",backing_fmt=raw", top, size)
		qemuIO(t, top, "write -P 5 2M 4k")
		flat := filepath.Join(dir, "flat"+size)
		qemuImg(t, "convert", "-f", "qcow2", "-O", "raw", top, flat)
		want, err := os.ReadFile(flat)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		err = Flatten(layer(t, top, NewRaw(bytes.NewReader(content), int64(len(content)))), func(at int64, p []byte) error {
			copy(got[at:], p)
			return nil
		})
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("on a raw base, %s: %v", size, err)
		}
	}
}

// What is not read is refused when it is opened or read; a caller that stops is
// obeyed.
func TestLayersAreRefused(t *testing.T) {
	var out memory
	w := NewWriter(&out, 8*unit.MiB)
	if err := w.Tell(0, words(cluster)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	const l1 = 3 * cluster // header, data, L2, L1
	for name, c := range map[string]change{
		"no magic": text(0, "none"), "version 4": be32(4, 4), "version 1": be32(4, 1), "clusters of 2^8": be32(20, 8), "clusters of 2^22": be32(20, 22), "clusters of 2^max": be32(20, 1<<32-1),
		"size 0": be64(24, 0), "size max": be64(24, 1<<64-512), "encrypted": be32(32, 1), "L1 none": be32(36, 0), "L1 huge": be32(36, 1<<32-1), "L1 outside": be64(40, 1<<40), "L1 wraps": be64(40, 1<<63),
		"data file": be64(72, q2Data), "zstd by half": be64(72, q2Zstd), "zstd and another": all(be64(72, q2Zstd), text(qcow2Header, "\x02")),
		"zstd of nothing": all(be64(72, q2Zstd), text(qcow2Header, "\x01"), be64(2*cluster, l2Compressed|cluster)), "unknown": be64(72, 1<<40),
		"L2 outside": be64(l1, 1<<40), "data outside": be64(2*cluster, 1<<40), "packed outside": be64(2*cluster, l2Compressed|1<<40), "packed of nothing": be64(2*cluster, l2Compressed|4*cluster),
		"cut": func(b []byte) []byte { return b[:100] },
	} {
		b := c(bytes.Clone(out.b))
		q, err := OpenQCOW2(bytes.NewReader(b), int64(len(b)), nil, unzstd)
		if err == nil {
			err = Flatten(q, func(int64, []byte) error { return nil })
		}
		if !errs.Is(err, errs.InvalidImage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	q, err := OpenQCOW2(bytes.NewReader(out.b), int64(len(out.b)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	packed := all(be64(72, q2Zstd), text(qcow2Header, "\x01"))(bytes.Clone(out.b))
	if _, err := OpenQCOW2(bytes.NewReader(packed), int64(len(packed)), nil, nil); !errs.Is(err, errs.InvalidImage) {
		t.Errorf("zstd without the means for it: %v", err)
	}
	stop := errors.New("stop")
	if err := Flatten(q, func(int64, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
	if _, err := q.ReadAt(make([]byte, 10), q.Bytes()-5); !errs.Is(err, errs.InvalidImage) {
		t.Errorf("behind the end: %v", err)
	}
}

// FuzzLayer: a file that a process of a guest wrote may hold anything.
func FuzzLayer(f *testing.F) {
	var out memory
	w := NewWriter(&out, 8*unit.MiB)
	_ = w.Tell(0, words(cluster))
	_, _ = w.Close()
	f.Add(out.b)
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := OpenQCOW2(bytes.NewReader(b), int64(len(b)), NewRaw(bytes.NewReader(b), int64(len(b))), unzstd)
		if err != nil {
			return
		}
		for _, at := range []int64{0, q.Bytes() / 2, max(q.Bytes()-5000, 0)} {
			p := make([]byte, min(5000, q.Bytes()-at))
			if _, err := q.ReadAt(p, at); err != nil && !errs.Is(err, errs.InvalidImage) {
				t.Error(err)
			}
		}
	})
}
