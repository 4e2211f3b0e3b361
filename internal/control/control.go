package control

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/audit"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/engine/blob"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/engine/remote"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Config is what a Service is made of.
type Config struct {
	Store *store.Store
	CA    *pki.Authority
	// Cluster is the cluster's row, its secrets opened elsewhere.
	Cluster store.Cluster
	Project id.ID
	Images  *blob.Dir
	// Random is where addresses of network interfaces are drawn; the system's if nil.
	Random io.Reader
	// Fetch reads files from elsewhere.
	Fetch *remote.Client
	// Address is where this server is reached, as others know it.
	Address string
	Live    Leases
	Clock   clock.Clock
	Log     *slog.Logger
	// Committed is called after each commit: it wakes executor and sequencer.
	Committed func()
	// Recorded is Committed where there is nothing to do for an executor.
	Recorded func()
	// Accept takes a job on within the transaction of its request, as
	// workflow.Executor.Accept does; nil leaves jobs to whoever looks for work.
	Accept func(ctx context.Context, tx pgx.Tx, j workflow.NewJob) (*workflow.Birth, error)
	// Nodes sends commands, to ask nodes what they hold.
	Nodes flows.Nodes
	// Suspect is called when a node told of a VM that the database does not know: it
	// should be looked at (Look). May be nil.
	Suspect func(node id.ID)
	// RoomMade is called when a node came or takes VMs again: VMs that fitted
	// nowhere may look again. May be nil.
	RoomMade func()
}

// Leases judges which nodes live: Liveness, or a test's word.
type Leases interface {
	// Reporting tells whether the node's lease is good.
	Reporting(node id.ID) bool
	// AllReporting are the nodes whose lease is good.
	AllReporting() []id.ID
	// Silent tells whether the node has surely not renewed for a whole lease; seq is
	// its newest renewal in the database.
	Silent(node id.ID, seq int64) bool
	// Heard takes a renewal.
	Heard(node id.ID, seq int64)
	// Servers are the addresses of the servers as last read; empty before.
	Servers() []string
}

// Service carries out requests.
type Service struct {
	cfg     Config
	uploads uploads
	holds   *Holds
}

// New makes a service.
func New(cfg Config) *Service {
	return &Service{cfg: cfg, holds: &Holds{store: cfg.Store}, uploads: uploads{open: map[id.ID]*sender{}}}
}

// Caller is who asks, and for which request.
type Caller struct {
	auth.Principal
	RequestID string
	// Key is the request's idempotency key, Hash what it stands for.
	Key  string
	Hash []byte
	// Revision, unless nil, is what the request believes its object to be at.
	Revision *int64
}

// Accepted is what a change that takes time answers with.
type Accepted struct {
	// Job is nil when there was nothing to do.
	Job *id.ID `json:"job"`
	// Object is what the change is about.
	Object id.ID `json:"object"`
	// Begun is the job as it was recorded, when it began with its acceptance; else it
	// is to be read.
	Begun *job.Job `json:"-"`
}

// record makes the audit record of an accepted change.
func (c Caller) record(action, kind string, object id.ID, name string) audit.Record {
	return audit.Record{
		Principal: c.Name, Role: string(c.Role), Origin: c.Origin, Action: action,
		ObjectKind: kind, ObjectID: &object, ObjectName: name, Outcome: audit.Accepted, RequestID: c.RequestID,
	}
}

// change runs one transaction of a request and wakes whoever waits for commits.
func (s *Service) change(ctx context.Context, fn func(*store.Tx) error) error {
	var last *store.Tx
	err := s.cfg.Store.InTx(ctx, func(tx *store.Tx) error {
		last = tx
		return fn(tx)
	})
	switch {
	case err != nil:
	case last.Begun > 0 && last.Begun == last.Jobs:
		s.cfg.Recorded()
	default:
		s.cfg.Committed()
	}
	return err
}

// once makes a creation happen once per idempotency key: the answer is kept in
// the transaction of the change, and a repeat gets it again. A key used for
// another request is refused.
func (s *Service) once(ctx context.Context, c Caller, create func(*store.Tx) (Accepted, error)) (Accepted, error) {
	if c.Key == "" {
		var out Accepted
		err := s.change(ctx, func(tx *store.Tx) (err error) {
			out, err = create(tx)
			return err
		})
		return out, err
	}
	for range 2 {
		if out, ok, err := s.answered(ctx, c); ok || err != nil {
			return out, err
		}
		out, first, err := s.createOnce(ctx, c, create)
		if first {
			return out, nil
		}
		if err != nil {
			return s.orAnswered(ctx, c, err)
		}
	}
	return Accepted{}, errs.New(errs.Conflict, "another request with the same Idempotency-Key is under way; repeat this one")
}

// orAnswered gives the answer of the request with the same key that made this one
// fail: of two at once, one finds the name taken, by the other.
func (s *Service) orAnswered(ctx context.Context, c Caller, failure error) (Accepted, error) {
	if out, ok, err := s.answered(ctx, c); ok && err == nil {
		return out, nil
	}
	return Accepted{}, failure
}

func (s *Service) answered(ctx context.Context, c Caller) (out Accepted, ok bool, err error) {
	a, err := s.cfg.Store.IdempotencyGet(ctx, c.Name, c.Key)
	if err != nil || a == nil {
		return out, false, err
	}
	if string(a.RequestHash) != string(c.Hash) {
		return out, false, errs.New(errs.IdempotencyReuse, "this Idempotency-Key was used for another request: make a new key for a new request")
	}
	if err := json.Unmarshal(a.Body, &out); err != nil {
		return out, false, errs.New(errs.Internal, "the kept answer cannot be read").Because(err)
	}
	return out, true, nil
}

// errLost rolls the transaction back when another request with the key won.
var errLost = errs.New(errs.Conflict, "another request with the same Idempotency-Key was first")

func (s *Service) createOnce(ctx context.Context, c Caller, create func(*store.Tx) (Accepted, error)) (out Accepted, first bool, err error) {
	err = s.change(ctx, func(tx *store.Tx) error {
		var err error
		if out, err = create(tx); err != nil {
			return err
		}
		body, err := json.Marshal(out)
		if err != nil {
			return errs.New(errs.Internal, "the answer cannot be kept").Because(err)
		}
		won, err := tx.IdempotencyPut(ctx, c.Name, c.Key, store.Answer{RequestHash: c.Hash, Status: 202, Body: body})
		if err == nil && !won {
			return errLost
		}
		return err
	})
	if errors.Is(err, errLost) {
		return out, false, nil
	}
	return out, err == nil, err
}

// HashRequest is what an idempotency key is bound to.
func HashRequest(method, path string, body []byte) []byte {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(method), []byte(path), body} {
		h.Write(part)
		h.Write([]byte{0})
	}
	return h.Sum(nil)
}

// enqueue starts a workflow in the transaction of the change.
func (s *Service) enqueue(ctx context.Context, tx *store.Tx, c Caller, j workflow.NewJob) (*workflow.Birth, error) {
	j.CreatedBy, j.RequestID = c.Name, c.RequestID
	if s.cfg.Accept == nil || !tx.Ends() {
		return nil, workflow.Enqueue(ctx, tx, j)
	}
	birth, err := s.cfg.Accept(ctx, tx, j)
	tx.Jobs++
	if birth != nil {
		tx.Begun++
	}
	tx.After(func(committed bool) {
		if committed {
			birth.Begin()
		} else {
			birth.Drop()
		}
	})
	return birth, err
}

// Jobs gives a page of jobs.
func (s *Service) Jobs(ctx context.Context, p store.Page) ([]job.Job, *store.Next, error) {
	return s.cfg.Store.JobList(ctx, s.cfg.Project, p)
}

// Job gives one job with its steps.
func (s *Service) Job(ctx context.Context, j id.ID) (job.Job, error) {
	return s.cfg.Store.JobGet(ctx, s.cfg.Project, j)
}

// CancelJob asks for a job to be cancelled.
func (s *Service) CancelJob(ctx context.Context, c Caller, j id.ID) (job.Job, error) {
	return s.onJob(ctx, c, "job.cancel", j, workflow.Cancel)
}

// RetryJob lets a job that needs attention go on.
func (s *Service) RetryJob(ctx context.Context, c Caller, j id.ID) (job.Job, error) {
	return s.onJob(ctx, c, "job.retry", j, workflow.Retry)
}
