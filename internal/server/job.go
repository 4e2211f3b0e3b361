package server

import (
	"context"
	"errors"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/event"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/engine/sequence"
	"github.com/novacron/novacron/internal/vocab/id"
)

func (s *Server) jobRoutes() []Route {
	read, execute := auth.Need{Resource: auth.VM, Action: auth.Read}, auth.Need{Resource: auth.VM, Action: auth.Execute}
	return []Route{
		handle(Route{
			Method: "GET", Path: "/api/v1/jobs", ID: "listJobs", Summary: "List jobs, newest first", Need: read,
			Query: listParams(Param{"state", "In this state; several are parted by commas."}, Param{"kind", "Of this type, such as vm.start; several are parted by commas."}, Param{"target", "About the object of this name" + nameDoc}),
		}, s.listJobs),
		handle(Route{Method: "GET", Path: "/api/v1/jobs/{job}", ID: "getJob", Summary: "Read a job and its steps", Need: read, Query: []Param{waitParam}}, s.getJob),
		handle(Route{Method: "POST", Path: "/api/v1/jobs/{job}/cancel", ID: "cancelJob", Summary: "Cancel a job", Need: execute}, onJob(s.control.CancelJob)),
		handle(Route{Method: "POST", Path: "/api/v1/jobs/{job}/retry", ID: "retryJob", Summary: "Let a job that needs attention go on", Need: execute}, onJob(s.control.RetryJob)),
	}
}

func (s *Server) listJobs(ctx context.Context, r *Request, _ none) (reply[api.List[api.Job]], error) {
	p, err := s.pages.read(r, "jobs")
	if err != nil {
		return reply[api.List[api.Job]]{}, err
	}
	jobs, next, err := s.control.Jobs(ctx, p)
	return list(jobs, s.pages.next(r, "jobs", next), toJob), err
}

func (s *Server) getJob(ctx context.Context, r *Request, _ none) (reply[api.Job], error) {
	j, err := id.Parse(r.Arg("job"))
	if err != nil {
		return reply[api.Job]{}, err
	}
	wait, err := waitOf(r)
	if err == nil && wait > 0 {
		err = s.waitJob(ctx, r, j, wait)
	}
	if err != nil {
		return reply[api.Job]{}, err
	}
	out, err := s.control.Job(ctx, j)
	return reply[api.Job]{Body: toJob(out), ETag: int64(out.Revision)}, err
}

func onJob(do func(context.Context, control.Caller, id.ID) (job.Job, error)) func(context.Context, *Request, none) (reply[api.Job], error) {
	return func(ctx context.Context, r *Request, _ none) (reply[api.Job], error) {
		j, err := id.Parse(r.Arg("job"))
		if err != nil {
			return reply[api.Job]{}, err
		}
		out, err := do(ctx, r.Caller, j)
		return reply[api.Job]{Body: toJob(out)}, err
	}
}

// waitJob waits until a job has ended or the time is over; neither is an error.
func (s *Server) waitJob(ctx context.Context, r *Request, j id.ID, d time.Duration) error {
	r.park()
	limited, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	sub, err := s.seq.Hub().Subscribe(limited, sequence.Latest, func(e *event.Event) bool { return e.JobID != nil && *e.JobID == j || e.ObjectID == j })
	if err != nil {
		return err
	}
	for {
		now, err := s.control.Job(ctx, j)
		if err != nil || now.State.Ended() {
			return err
		}
		if _, err := sub.Next(limited); err != nil {
			if limited.Err() != nil && ctx.Err() == nil {
				return nil
			}
			if !errors.Is(err, sequence.ErrTooOld) {
				return err
			}
		}
	}
}
