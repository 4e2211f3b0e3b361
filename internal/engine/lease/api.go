package lease

import (
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// TTL is how long a server may stay silent before others take its work.
const TTL = 3 * time.Second

// Options of a Member.
type Options struct {
	// Pool names the database. The member opens a small pool of its own from its
	// configuration: a busy pool must not stop the heart.
	Pool *pgxpool.Pool
	// Address and Version are shown to operators.
	Address, Version string
	Clock            clock.Clock
	Log              *slog.Logger
	// TTL is lease.TTL unless a test or a scaled bench says otherwise.
	TTL time.Duration
	// ProvenDead are servers whose process is known to be gone, such as this one's
	// predecessor on the same machine: their work is taken over without waiting
	// for their lease. To name one that lives breaks everything.
	ProvenDead []id.ID
	// Forget is how long the row of a dead server is kept; 10 minutes by default.
	Forget time.Duration
}
