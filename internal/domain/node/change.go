package node

import (
	"fmt"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Change is what an operator decides about a node. What is nil stays.
type Change struct {
	Shutdown                    *ShutdownPolicy
	MigrationsOut, MigrationsIn *int
}

// MaxMigrations bounds how many VMs may leave a node, or come to it, at once.
const MaxMigrations = 100

// Migrates tells whether it is about migrations.
func (c Change) Migrates() bool { return c.MigrationsOut != nil || c.MigrationsIn != nil }

// Validate refuses what no node is.
func (c Change) Validate() error {
	if c.Shutdown != nil {
		if err := c.Shutdown.Validate(); err != nil {
			return err
		}
	}
	for pointer, n := range map[string]*int{"/migrations_out": c.MigrationsOut, "/migrations_in": c.MigrationsIn} {
		if n != nil && (*n < 1 || *n > MaxMigrations) {
			return errs.New(errs.OutOfRange, "a node takes part in 1 to %d migrations each way at once", MaxMigrations).
				At(errs.Field{Pointer: pointer, Message: "is out of range", Limit: fmt.Sprint(MaxMigrations), Got: fmt.Sprint(*n)})
		}
	}
	return nil
}
