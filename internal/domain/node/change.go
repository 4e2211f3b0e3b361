package node

import (
	"fmt"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Change is what an operator decides about a node. What is nil stays.
type Change struct {
	Shutdown                    *ShutdownPolicy
	MigrationsOut, MigrationsIn *int
	// MigrationBytesPerSecond is Migrations.BytesPerSecond.
	MigrationBytesPerSecond *int64
}

// Migrations are a node's limits of them.
type Migrations struct {
	// Out and In are how many VMs may leave it, and come to it, at once.
	Out, In int
	// BytesPerSecond it gives to all of them together, those from it and those to it; 0 for
	// no limit.
	BytesPerSecond int64
}

// MinMigrationRate is the least that a node gives to migrations if it limits them: with less
// no guest comes to its end.
const MinMigrationRate = 1 << 20

// Migrations gives the limits as they are changed.
func (c Change) Migrations(m Migrations) Migrations {
	if c.MigrationsOut != nil {
		m.Out = *c.MigrationsOut
	}
	if c.MigrationsIn != nil {
		m.In = *c.MigrationsIn
	}
	if c.MigrationBytesPerSecond != nil {
		m.BytesPerSecond = *c.MigrationBytesPerSecond
	}
	return m
}

// MaxMigrations bounds how many VMs may leave a node, or come to it, at once.
const MaxMigrations = 100

// Migrates tells whether it is about migrations.
func (c Change) Migrates() bool {
	return c.MigrationsOut != nil || c.MigrationsIn != nil || c.MigrationBytesPerSecond != nil
}

// Validate refuses what no node is.
func (c Change) Validate() error {
	if c.Shutdown != nil {
		if err := c.Shutdown.Validate(); err != nil {
			return err
		}
	}
	if n := c.MigrationBytesPerSecond; n != nil && *n != 0 && *n < MinMigrationRate {
		return errs.New(errs.OutOfRange, "a node gives at least %d bytes per second to its migrations, or 0 for no limit", MinMigrationRate).
			At(errs.Field{Pointer: "/migration_bytes_per_second", Message: "is out of range", Limit: fmt.Sprint(MinMigrationRate), Got: fmt.Sprint(*n)})
	}
	for pointer, n := range map[string]*int{"/migrations_out": c.MigrationsOut, "/migrations_in": c.MigrationsIn} {
		if n != nil && (*n < 1 || *n > MaxMigrations) {
			return errs.New(errs.OutOfRange, "a node takes part in 1 to %d migrations each way at once", MaxMigrations).
				At(errs.Field{Pointer: pointer, Message: "is out of range", Limit: fmt.Sprint(MaxMigrations), Got: fmt.Sprint(*n)})
		}
	}
	return nil
}
