package local

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// Bounds of the logs: each child has a file and the one before.
const (
	maxLog      = 16 << 20
	lookAtLogs  = 30 * time.Second
	olderSuffix = ".1"
)

// openLog opens a child's log. Children write to the file itself, so that they
// lose nothing when the supervisor dies.
func openLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, hostError(err, "the log %s cannot be opened", path)
	}
	return f, nil
}

// boundLogs keeps the logs small until ctx ends.
func boundLogs(ctx context.Context, clk clock.Clock, dir string) {
	clock.Every(ctx, clk, lookAtLogs, func(context.Context) { boundLogsOnce(dir, maxLog) })
}

// boundLogsOnce copies a log that is too long away and empties it. The writers
// append, so they go on at its new end; what they write in between is lost.
func boundLogsOnce(dir string, limit int64) {
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return
	}
	for _, path := range logs {
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || info.Size() <= limit {
			continue
		}
		if copyFile(path, path+olderSuffix) == nil {
			_ = os.Truncate(path, 0)
		}
	}
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	return err
}
