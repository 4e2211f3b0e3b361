package outbox_test

import (
	"sync"
	"testing"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/outbox"
	"github.com/novacron/novacron/internal/vocab/gen"
)

func numbered(n int) contract.Status {
	return contract.Status{Ref: contract.Ref{Epoch: gen.OwnerEpoch(n)}}
}

func TestOrderHoldsUnderConcurrentFlush(t *testing.T) {
	const n = 2000
	var got []int
	o := outbox.New(func(s contract.Status) { got = append(got, int(s.Epoch)) })
	var order sync.Mutex
	next := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range n / 8 {
				order.Lock()
				o.Put(numbered(next))
				next++
				order.Unlock()
				o.Flush()
			}
		})
	}
	wg.Wait()
	o.Close()
	if len(got) != n {
		t.Fatalf("delivered %d of %d", len(got), n)
	}
	for i, v := range got {
		if v != i {
			t.Fatalf("position %d holds %d", i, v)
		}
	}
}

func TestSinkMayPutAndFlush(t *testing.T) {
	var got []int
	var o *outbox.Outbox
	o = outbox.New(func(s contract.Status) {
		got = append(got, int(s.Epoch))
		if s.Epoch < 3 {
			o.Put(numbered(int(s.Epoch) + 1))
			o.Flush()
		}
	})
	o.Put(numbered(1))
	o.Flush()
	if len(got) != 3 || got[2] != 3 {
		t.Fatalf("got %v, want 1 2 3", got)
	}
}

func TestNothingAfterClose(t *testing.T) {
	calls := 0
	o := outbox.New(func(contract.Status) { calls++ })
	o.Put(numbered(1))
	o.Close()
	o.Put(numbered(2))
	o.Flush()
	if calls != 0 {
		t.Fatalf("%d calls after close", calls)
	}
}
