package flows

import (
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// A large VM has the time that the slowest disk takes for it.
func TestCopyTimeGrowsWithTheVM(t *testing.T) {
	large := vm.View{Volumes: []vm.Volume{{SizeBytes: 2 * unit.TiB}}}
	if small, got := copyTime(vm.View{}), copyTime(large); small != fetchTimeout || got < 24*time.Hour {
		t.Errorf("%v for nothing, %v for 2 TiB", small, got)
	}
}
