package e2e

import (
	"strings"
	"sync"
)

// watcher is a sink that tells when a text has come.
type watcher struct {
	want  string
	found chan struct{}

	mu   sync.Mutex
	seen strings.Builder
	done bool
}

// Write implements io.Writer.
func (w *watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen.Write(p)
	if !w.done && strings.Contains(w.seen.String(), w.want) {
		w.done = true
		close(w.found)
	}
	return len(p), nil
}

func (w *watcher) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen.String()
}
