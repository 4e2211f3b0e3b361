package turn_test

import (
	"context"
	"sync"
	"testing"

	"github.com/novacron/novacron/internal/driver/turn"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func TestTurnsOfOneVMExcludeEachOther(t *testing.T) {
	var table turn.Table
	vm := id.New()
	inside, most := 0, 0
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 200 {
				leave, err := table.Take(t.Context(), vm)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				inside++
				most = max(most, inside)
				mu.Unlock()
				mu.Lock()
				inside--
				mu.Unlock()
				leave()
			}
		})
	}
	wg.Wait()
	if most != 1 {
		t.Fatalf("%d calls were inside at once", most)
	}
}

func TestWaitingEndsWithItsContextAndOthersGoOn(t *testing.T) {
	var table turn.Table
	vm := id.New()
	leave, err := table.Take(t.Context(), vm)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := table.Take(ctx, vm); !errs.Is(err, errs.Timeout) {
		t.Fatalf("got %v", err)
	}
	other, err := table.Take(t.Context(), id.New())
	if err != nil {
		t.Fatal(err)
	}
	other()
	leave()
	if leave, err = table.Take(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	leave()
}
