package qemu

import (
	"encoding/json"
	"testing"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// What a guest says of its memory is taken as far as it can be true.
func TestMemoryThatCannotBeTrue(t *testing.T) {
	for said, want := range map[string]contract.GuestMemory{
		`{"stat-total-memory":1073741824,"stat-free-memory":1048576,"stat-available-memory":2097152,"stat-disk-caches":4096}`: {
			TotalBytes: unit.GiB, FreeBytes: unit.MiB, AvailableBytes: 2 * unit.MiB, CacheBytes: 4096,
		},
		// what a driver does not tell
		`{"stat-total-memory":1073741824,"stat-free-memory":18446744073709551615,"stat-available-memory":18446744073709551615}`: {TotalBytes: unit.GiB},
		// more than there is
		`{"stat-total-memory":1048576,"stat-free-memory":1099511627776,"stat-disk-caches":9223372036854775808}`: {TotalBytes: unit.MiB, FreeBytes: unit.MiB},
		`{"stat-total-memory":9223372036854775807,"stat-free-memory":5}`:                                        {},
		`{}`: {},
	} {
		var b balloon
		if err := json.Unmarshal([]byte(`{"last-update":1,"stats":`+said+`}`), &b); err != nil {
			t.Fatal(err)
		}
		if got := b.memory(); *got != want {
			t.Errorf("%s: %+v, want %+v", said, *got, want)
		}
	}
}
