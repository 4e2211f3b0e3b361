package workflow

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/engine/query"
	"github.com/novacron/novacron/internal/vocab/id"
)

// ends has jobs that succeed at about the same time end in one transaction: while one
// is under way the next gathers. A job alone ends as it always would, and so does each
// that could not end with the others.
type ends struct {
	mu      sync.Mutex
	waiting []*ending
	busy    bool
}

// ending is a job that has succeeded.
type ending struct {
	c     *claim
	done  *doneStep
	err   error
	ready chan struct{}
}

const (
	// endsTogether bounds how many jobs end in one transaction.
	endsTogether = 64
	// endsTimeout bounds that transaction; its jobs then end one by one.
	endsTimeout = 5 * time.Second
)

// succeed ends a job that has succeeded, together with others where its flow can.
func (e *Executor) succeed(c *claim, done *doneStep) error {
	if c.flow.finishAll == nil || done == nil {
		return c.endAlone(job.Succeeded, done, nil)
	}
	x := &ending{c: c, done: done, ready: make(chan struct{})}
	e.ends.mu.Lock()
	e.ends.waiting = append(e.ends.waiting, x)
	lead := !e.ends.busy
	e.ends.busy = true
	e.ends.mu.Unlock()
	if lead {
		go e.endWaiting()
	}
	<-x.ready
	if errors.Is(x.err, errAlone) {
		return c.endAlone(job.Succeeded, done, nil)
	}
	return x.err
}

// errAlone says that a job did not end with the others, for whatever reason.
var errAlone = errors.New("workflow: the job ends alone")

// endWaiting ends what waits until nothing does.
func (e *Executor) endWaiting() {
	for {
		e.ends.mu.Lock()
		batch := e.ends.waiting[:min(len(e.ends.waiting), endsTogether)]
		e.ends.waiting = e.ends.waiting[len(batch):]
		if len(batch) == 0 {
			e.ends.waiting, e.ends.busy = nil, false
		}
		e.ends.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		e.endBatch(batch)
		for _, x := range batch {
			close(x.ready)
		}
	}
}

// endBatch fills in what came of each.
func (e *Executor) endBatch(batch []*ending) {
	if len(batch) == 1 {
		batch[0].err = batch[0].c.endAlone(job.Succeeded, batch[0].done, nil)
		return
	}
	for _, x := range batch {
		x.err = errAlone
	}
	if e.isKilled() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), endsTimeout)
	defer cancel()
	var ended []*ending
	err := pgtx.Run(ctx, e.opts.Pool, func(tx pgx.Tx) (err error) {
		ended, err = e.endAll(ctx, tx, batch)
		return err
	})
	if err != nil {
		return
	}
	for _, x := range ended {
		x.err = nil
	}
	e.opts.Committed()
}

// endAll ends those of the batch whose claim is ours still and which nobody has asked
// to cancel.
func (e *Executor) endAll(ctx context.Context, tx pgx.Tx, batch []*ending) ([]*ending, error) {
	p := query.EndAllParams{Holder: e.opts.Members.ID()}
	of := map[id.ID]*ending{}
	for _, x := range batch {
		of[x.c.job.ID] = x
		p.Ids, p.Fences = append(p.Ids, x.c.job.ID), append(p.Fences, x.c.fence)
		p.Done, p.Outputs = append(p.Done, int32(x.done.pos)), append(p.Outputs, string(x.done.output))
	}
	ids, err := query.New(tx).EndAll(ctx, p)
	if err != nil {
		return nil, err
	}
	var ended []*ending
	flows := map[*Bound][]*claim{}
	for _, i := range ids {
		x := of[i]
		ended = append(ended, x)
		flows[x.c.flow] = append(flows[x.c.flow], x.c)
	}
	for f, claims := range flows {
		if err := guard(func() error { return f.finishAll(ctx, tx, claims) }); err != nil {
			return nil, err
		}
	}
	return ended, nil
}
