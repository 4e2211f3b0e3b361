package flows

import (
	"time"

	"github.com/novacron/novacron/internal/domain/migration"
)

// MigrateLiveParams are the parameters of vm.migrate_live. The migration has the job's id.
type MigrateLiveParams struct {
	MigrateParams
	// Options are complete: nothing of them is left to a default.
	Options migration.Options `json:"options"`
	// Timeout is how long it may take until the guest is halted for its switch-over. Then
	// it is given up, and the VM goes on where it is.
	Timeout time.Duration `json:"timeout"`
}
