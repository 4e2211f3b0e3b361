package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The log is at most two segments, each named by the offset of its first byte in
// the whole stream, so that a reader knows where it is over rotations and gaps.
const (
	segmentPrefix = "serial."
	segmentSuffix = ".log"
)

func segmentName(start int64) string {
	return fmt.Sprintf("%s%020d%s", segmentPrefix, start, segmentSuffix)
}

type segment struct {
	start, size int64
	name        string
}

// segments lists the log's files, oldest first.
func segments(root *os.Root) ([]segment, error) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, err
	}
	var out []segment
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), segmentPrefix)
		digits, ok2 := strings.CutSuffix(digits, segmentSuffix)
		start, err := strconv.ParseInt(digits, 10, 64)
		if !ok || !ok2 || err != nil || start < 0 {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated away meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, segment{start, info.Size(), e.Name()})
	}
	slices.SortFunc(out, func(a, b segment) int { return int(min(max(a.start-b.start, -1), 1)) })
	return out, nil
}

// logWriter appends the stream to segments. Disk errors lose bytes and are
// otherwise ignored: the guest comes first.
type logWriter struct {
	root *os.Root
	max  int64

	cur  *os.File
	size int64

	mu      sync.Mutex
	at      int64 // offset up to which everything was written or given up
	changed chan struct{}
}

func newLogWriter(root *os.Root, size int64) *logWriter {
	return &logWriter{root: root, max: size, changed: make(chan struct{})}
}

// Write implements io.Writer; it never fails.
func (w *logWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := w.append(rest)
		rest = rest[n:]
		w.mu.Lock()
		w.at += int64(n)
		close(w.changed)
		w.changed = make(chan struct{})
		w.mu.Unlock()
	}
	return len(p), nil
}

// append writes a piece into the current segment and tells how much of p is done
// with.
func (w *logWriter) append(p []byte) int {
	if w.cur == nil || w.size >= w.max {
		w.rotate()
	}
	if w.cur == nil {
		return len(p)
	}
	p = p[:min(int64(len(p)), w.max-w.size)]
	n, err := w.cur.Write(p)
	w.size += int64(n)
	if err != nil { // a gap: what comes next begins a segment of its own
		_ = w.cur.Close()
		w.cur = nil
	}
	return len(p)
}

// rotate begins a segment and leaves one older.
func (w *logWriter) rotate() {
	if w.cur != nil {
		_ = w.cur.Close()
		w.cur = nil
	}
	old, _ := segments(w.root)
	for i := range len(old) - 1 {
		_ = w.root.Remove(old[i].name)
	}
	f, err := w.root.OpenFile(segmentName(w.at), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	w.cur, w.size = f, 0
}

// written is the offset up to which everything was written or given up.
func (w *logWriter) written() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

// wait returns once everything before offset was written or given up.
func (w *logWriter) wait(ctx context.Context, offset int64) error {
	for {
		w.mu.Lock()
		at, changed := w.at, w.changed
		w.mu.Unlock()
		if at >= offset {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *logWriter) close() {
	if w.cur != nil {
		_ = w.cur.Close()
		w.cur = nil
	}
}

// readLog copies bytes at offset from into p; bytes no longer there are skipped.
// At the end of what is there it gives io.EOF.
func readLog(root *os.Root, from int64, p []byte) (n int, next int64, err error) {
	all, err := segments(root)
	if err != nil {
		return 0, from, err
	}
	for _, s := range all {
		if from >= s.start+s.size {
			continue
		}
		from = max(from, s.start)
		f, err := root.Open(s.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, from, err
		}
		n, err := f.ReadAt(p, from-s.start)
		_ = f.Close()
		if n > 0 {
			return n, from + int64(n), nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, from, err
		}
	}
	return 0, from, io.EOF
}

// logEnd is the offset after the newest byte in files.
func logEnd(root *os.Root) (int64, error) {
	all, err := segments(root)
	if err != nil || len(all) == 0 {
		return 0, err
	}
	last := all[len(all)-1]
	return last.start + last.size, nil
}
