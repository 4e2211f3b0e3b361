package local

import (
	"encoding/json"
	"os"

	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/process"
)

// guestProcesses reads who runs a guest from its record.
func guestProcesses(record string) []process.Identity {
	b, err := os.ReadFile(record)
	if err != nil {
		return nil
	}
	var proc keeper.Proc
	if json.Unmarshal(b, &proc) != nil {
		return nil
	}
	return []process.Identity{proc.Hypervisor}
}
