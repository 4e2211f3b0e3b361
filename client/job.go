package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"time"

	"github.com/novacron/novacron/api"
)

// Jobs are the changes under way, and their record.
type Jobs struct{ c *Client }

func jobPath(job string) string { return "/jobs/" + url.PathEscape(job) }

// List gives one page.
func (s Jobs) List(ctx context.Context, o ListOptions) (api.List[api.Job], error) {
	return list[api.Job](ctx, s.c, "/jobs", o)
}

// All walks through every page.
func (s Jobs) All(ctx context.Context, o ListOptions) iter.Seq2[api.Job, error] {
	return all[api.Job](ctx, s.c, "/jobs", o)
}

// Get reads one.
func (s Jobs) Get(ctx context.Context, job string) (api.Job, error) {
	return get[api.Job](ctx, s.c, jobPath(job))
}

// Cancel asks a job to undo what it did and end.
func (s Jobs) Cancel(ctx context.Context, job string) (Change, error) {
	return post[Change](ctx, s.c, jobPath(job)+"/cancel", nil, nil)
}

// Retry lets a job that needs attention try again.
func (s Jobs) Retry(ctx context.Context, job string) (Change, error) {
	return post[Change](ctx, s.c, jobPath(job)+"/retry", nil, nil)
}

// JobError says that a job ended without success.
type JobError struct{ Job api.Job }

// Error implements error.
func (e *JobError) Error() string {
	what := fmt.Sprintf("%s of %s %s", e.Job.Type, e.Job.Target.Kind, e.Job.Target.Name)
	switch {
	case e.Job.State == "cancelled":
		return what + " was cancelled"
	case e.Job.Error != nil:
		return what + " did not succeed: " + e.Job.Error.Detail
	default:
		return what + " did not succeed: its job is " + e.Job.State
	}
}

const (
	// pollFirst to pollLast is how often a job is read while no event says that it
	// changed: short jobs are seen to end soon, long ones cost little.
	pollFirst = 50 * time.Millisecond
	pollLast  = time.Second
	// patience is how long waiting goes on while no server answers.
	patience = 2 * time.Minute
)

// WaitJob waits until a job has ended. It follows the cluster's events and reads
// the job once a second besides, so that it works without events too. progress,
// if not nil, is called with each new view of the job. A job that did not succeed
// is a *JobError. When ctx ends, the job itself goes on.
func (c *Client) WaitJob(ctx context.Context, id string, progress func(api.Job)) (api.Job, error) {
	if progress == nil {
		progress = func(api.Job) {}
	}
	watch, stop := context.WithCancel(ctx)
	defer stop()
	nudge := make(chan struct{}, 1)
	go c.nudge(watch, id, nudge)
	w := &waiting{c: c, id: id, progress: progress, answered: now()}
	for every := pollFirst; ; every = min(every*2, pollLast) {
		done, err := w.look(ctx)
		if done || err != nil {
			return w.last, err
		}
		if err := waitNudge(ctx, nudge, every); err != nil {
			return w.last, fail(CodeInterrupted, "waiting for the job was interrupted; the job goes on", err)
		}
	}
}

// waiting is one caller's wait for a job.
type waiting struct {
	c        *Client
	id       string
	progress func(api.Job)
	last     api.Job
	// answered is when a server last did.
	answered time.Time
}

// look reads the job once; done says that it has ended, whatever came of it.
func (w *waiting) look(ctx context.Context) (done bool, err error) {
	job, err := w.c.Jobs.Get(ctx, w.id)
	if err != nil {
		if ctx.Err() != nil || !retryable(err) || now().Sub(w.answered) > patience {
			return false, err
		}
		return false, nil
	}
	w.answered = now()
	if w.last.ID == "" || job.Revision != w.last.Revision || len(job.Steps) != len(w.last.Steps) {
		w.progress(job)
	}
	w.last = job
	return job.Ended(), ended(job)
}

// WaitChange waits for a change's job, if there is one.
func (c *Client) WaitChange(ctx context.Context, change Change, progress func(api.Job)) (api.Job, error) {
	if change.Job == nil {
		return api.Job{}, nil
	}
	return c.WaitJob(ctx, change.Job.ID, progress)
}

func ended(job api.Job) error {
	if !job.Ended() || job.State == "succeeded" {
		return nil
	}
	return &JobError{Job: job}
}

// retryable tells whether the same call may succeed later.
func retryable(err error) bool {
	e, ok := errors.AsType[*api.Error](err)
	return ok && e.Retryable
}

// nudge says when an event concerns the job. Errors end it: polling goes on.
func (c *Client) nudge(ctx context.Context, id string, nudge chan<- struct{}) {
	for ev, err := range c.Events(ctx, FromNow) {
		if err != nil {
			return
		}
		if ev.Job != id && ev.Object.ID != id {
			continue
		}
		select {
		case nudge <- struct{}{}:
		default:
		}
	}
}

func waitNudge(ctx context.Context, nudge <-chan struct{}, every time.Duration) error {
	timer, stop := after(every)
	defer stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-nudge:
	case <-timer:
	}
	return nil
}
