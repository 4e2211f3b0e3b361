// Package turn lets calls about one object take turns while calls about others go on.
package turn

import (
	"context"
	"sync"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Table knows whose turn it is, by id. The zero value is ready.
type Table struct {
	mu   sync.Mutex
	busy map[id.ID]chan struct{} // closed when the turn ends
}

// Take waits until no other call about the object is under way, or until ctx ends
// (errs.Timeout). The caller calls leave once.
func (t *Table) Take(ctx context.Context, object id.ID) (leave func(), err error) {
	for {
		t.mu.Lock()
		current, taken := t.busy[object]
		if !taken {
			mine := make(chan struct{})
			if t.busy == nil {
				t.busy = map[id.ID]chan struct{}{}
			}
			t.busy[object] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.busy, object)
				t.mu.Unlock()
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-current:
		case <-ctx.Done():
			return nil, errs.New(errs.Timeout, "another call about %s is still under way", object).Because(ctx.Err())
		}
	}
}
