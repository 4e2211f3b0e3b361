package lease

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/vocab/id"
)

// ErrLost says that a lease is no longer held under the term it names.
var ErrLost = errors.New("lease: the term has ended")

// Member is this server among the servers.
type Member struct{ opts Options }

// NewMember makes a member with a fresh id; Run brings it to life.
func NewMember(opts Options) *Member { return &Member{opts: opts} }

// ID is this server's id, new with each process.
func (m *Member) ID() id.ID { panic("lease: not built yet") }

// Run joins, beats and watches until ctx ends, then leaves.
func (m *Member) Run(ctx context.Context) error { panic("lease: not built yet") }

// Ready is closed once the first beat is in the database.
func (m *Member) Ready() <-chan struct{} { panic("lease: not built yet") }

// Valid tells whether this server may act: its last beat was sent less than
// 2/3 TTL ago.
func (m *Member) Valid() bool { panic("lease: not built yet") }

// Dead tells whether the server has been silent for a whole TTL as seen by this
// server, with the database readable throughout.
func (m *Member) Dead(server id.ID) bool { panic("lease: not built yet") }

// Bind gives a context that ends when ctx does or when this server stops being
// valid (cause ErrExpired). It has ended already if the server is not valid now.
func (m *Member) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	panic("lease: not built yet")
}

// Lead campaigns for the role until ctx ends and runs lead while this server
// holds it; lead's context ends when the lease does. When lead returns while the
// lease is held, the lease is given up and campaigned for again after a second.
func (m *Member) Lead(ctx context.Context, role string, lead func(ctx context.Context, term Term)) {
	panic("lease: not built yet")
}

// Term is one server's turn in a role.
type Term struct {
	Role   string
	Holder id.ID
	Number int64
}

// Check locks the lease's row against a change of holder until tx ends, and
// fails with ErrLost if the term is over. Call it first in every transaction
// that writes on behalf of the role.
func (t Term) Check(ctx context.Context, tx pgx.Tx) error { panic("lease: not built yet") }
