package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/manifest"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func newApply(a *app) *cobra.Command {
	var f fileFlags
	var w *waitFlags
	run := applying{app: a}
	cmd := leaf("apply -f FILE", "Make objects what documents declare", names(), func(cmd *cobra.Command, _ []string) error {
		docs, err := f.read(a, cmd)
		if err != nil {
			return err
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		run.c, run.waits, run.timeout = c, a.waits(cmd, w), w.timeout
		return run.all(cmd.Context(), docs)
	})
	cmd.Long = `Make objects what documents declare: what is missing is created, what differs is
changed, what is equal is left alone. Fields that a document does not have stay
as they are.

All documents are read, and judged by the server, before the first change. When
one is refused, nothing is changed; with --keep-going the others are applied.
Images come first, then nodes, then virtual machines. A change that fails after
all ends it; the rest is named as not tried.

An image that is not there is imported first, where its content lies beside its
document, in the folder "images", as 'novacron export --dir DIR --images' writes it.
In a dry run, virtual machines that miss such an image are not judged.

A document that was read with 'novacron get' has an id and a revision: it is
refused once its object is another one or has changed. Its status is not looked
at. Node documents hold what an operator decides; nodes are not created.`
	cmd.Example = `  novacron apply -f web.yaml --wait
  novacron get vm web | sed 's/cpus: 2/cpus: 4/' | novacron apply -f -
  novacron apply -f project/ --dry-run`
	f.add(cmd)
	fl := cmd.Flags()
	fl.BoolVar(&run.dry, "dry-run", false, "change nothing and say what would be changed")
	fl.BoolVar(&run.prune, "prune", false, "remove disks that are not declared, and what is on them")
	fl.BoolVar(&run.keepGoing, "keep-going", false, "apply the others when one is refused or fails")
	w = a.addWait(cmd)
	return cmd
}

// applying is one run of apply.
type applying struct {
	*app
	c                     *client.Client
	dry, prune, keepGoing bool
	waits                 bool
	timeout               time.Duration

	docs    []manifest.Document
	results []api.ApplyResult
	failure error // the first one
	failed  int
	changed int
	told    bool
	// came are the names of images that were imported on the way
	came map[string]bool
}

func (r *applying) all(ctx context.Context, docs []manifest.Document) error {
	if r.timeout > 0 {
		var stop func()
		ctx, stop = context.WithTimeout(ctx, r.timeout)
		defer stop()
	}
	var err error
	r.docs = docs
	if r.results, err = judge(ctx, r.c, docs, r.prune); err != nil {
		return err
	}
	if err := r.importMissing(ctx); err != nil {
		return err
	}
	for _, res := range r.results {
		if res.Error != nil {
			r.fail(res.Error)
		}
	}
	if !r.dry {
		r.change(ctx)
	}
	if r.printer().Format.ForPrograms() {
		if err := r.printer().Document(api.Applied{Results: r.results}); err != nil {
			return err
		}
	} else if !r.told {
		r.tell()
	}
	return r.end(ctx)
}

func (r *applying) fail(err error) {
	r.failed++
	if r.failure == nil {
		r.failure = err
	}
}

// change makes the changes, one object after the other, and waits for their jobs
// at the end, if it is to wait.
func (r *applying) change(ctx context.Context) {
	if r.stopped() {
		for i := range r.results {
			if r.results[i].Error == nil {
				r.results[i].Action = notTried
			}
		}
		return
	}
	r.told = true
	for i := range r.results {
		r.attempt(ctx, i)
	}
	for i := range r.results {
		if res := &r.results[i]; r.later(*res) {
			r.await(ctx, res)
			r.line(*res, r.docs[i])
		}
	}
}

// notTried is what becomes of an object behind one that failed.
const notTried = "not_tried"

// stopped tells whether the rest is not tried.
func (r *applying) stopped() bool { return r.failure != nil && !r.keepGoing }

// later tells whether what became of an object is known at the end only.
func (r *applying) later(res api.ApplyResult) bool {
	return r.waits && res.Job != "" && res.Error == nil
}

func (r *applying) attempt(ctx context.Context, i int) {
	res := &r.results[i]
	switch {
	case res.Error != nil, res.Action == "none", res.Action == imported:
	case r.stopped():
		res.Action = notTried
	default:
		r.one(ctx, i)
	}
	if !r.later(*res) {
		r.line(*res, r.docs[i])
	}
}

// mostSteps bounds how many changes one object takes.
const mostSteps = 64

// one applies one document until nothing is left to change; between changes of
// one object there is its job to wait for.
func (r *applying) one(ctx context.Context, i int) {
	res, doc := &r.results[i], r.docs[i]
	for range mostSteps {
		now, err := r.once(ctx, doc)
		if err != nil {
			r.refuse(res, err)
			return
		}
		if res.ID = now.ID; now.Action != "none" {
			r.changed++
			res.Job = now.Job
		}
		if !now.More {
			return
		}
		if res.Job != "" {
			if r.await(ctx, res); res.Error != nil {
				return
			}
		}
		if doc, err = doc.WithoutRevision(); err != nil { // it has risen by our own change
			r.refuse(res, err)
			return
		}
	}
	r.refuse(res, errs.New(errs.Conflict, "%s %q still differs after %d changes: somebody else changes it meanwhile", res.Kind, res.Name, mostSteps))
}

// once makes one change.
func (r *applying) once(ctx context.Context, doc manifest.Document) (api.ApplyResult, error) {
	done, err := r.c.Apply(ctx, client.ApplyOptions{Prune: r.prune}, doc.JSON)
	switch {
	case err != nil:
		return api.ApplyResult{}, err
	case len(done.Results) != 1:
		return api.ApplyResult{}, errs.New(errs.Internal, "the server answered with %d results for one document", len(done.Results))
	case done.Results[0].Error != nil:
		return api.ApplyResult{}, done.Results[0].Error
	}
	return done.Results[0], nil
}

func (r *applying) refuse(res *api.ApplyResult, err error) {
	e := *publicError(err)
	res.Action, res.Error = "refused", &e
	r.fail(err)
}

// await waits for the job of a change.
func (r *applying) await(ctx context.Context, res *api.ApplyResult) {
	show := newProgress(r.err, isTerminal(r.err))
	_, err := r.c.WaitJob(ctx, res.Job, show.update)
	show.done()
	if err == nil {
		res.Job = ""
		return
	}
	if j, ok := errors.AsType[*client.JobError](err); ok {
		e := api.Error{Code: "job_" + j.Job.State, Detail: j.Error(), Job: j.Job.ID}
		res.Error = &e
	} else {
		if errors.Is(err, context.DeadlineExceeded) {
			err = errs.New(errs.Timeout, "it was not done within %s; the job goes on", r.timeout).HeldBy(res.Job)
		}
		e := *publicError(err)
		res.Error = &e
	}
	r.fail(err)
}

// tell prints all lines.
func (r *applying) tell() {
	for i, res := range r.results {
		r.print(res, r.docs[i])
	}
}

// line prints what became of one object as soon as it is known; what is refused
// at once is told with the rest.
func (r *applying) line(res api.ApplyResult, d manifest.Document) {
	if !r.printer().Format.ForPrograms() {
		r.print(res, d)
	}
}

func (r *applying) print(res api.ApplyResult, d manifest.Document) {
	fmt.Fprintf(r.out, "%s %s: %s\n", output.Clean(res.Kind), output.Clean(res.Name), r.became(res, d))
}

// became says what became of an object.
func (r *applying) became(res api.ApplyResult, d manifest.Document) string {
	job := ""
	if res.Job != "" {
		job = " (job " + res.Job + ")"
	}
	if res.Error != nil && res.Action != "refused" {
		return "failed: " + refusal(d, res.Error)
	}
	did := ""
	if r.dry {
		did = "would be "
	}
	switch res.Action {
	case "refused":
		return "refused: " + refusal(d, res.Error)
	case "create":
		return did + "created" + job
	case "change":
		if d.Kind == "image" && r.came[d.Name] {
			did = "imported, "
		}
		return did + "changed: " + fieldsOf(res.Fields) + job
	case imported:
		return did + "imported"
	case "none":
		return "unchanged"
	default:
		return "not tried"
	}
}

// end is the command's error, with a summary that says whether anything was
// changed.
func (r *applying) end(ctx context.Context) error {
	if r.failure == nil {
		return nil
	}
	if ctx.Err() != nil && interrupted(r.failure) {
		return r.failure
	}
	left := 0
	for _, res := range r.results {
		if res.Action == notTried {
			left++
		}
	}
	what := "nothing was changed"
	if r.changed > 0 {
		what = fmt.Sprintf("%d changes were made", r.changed)
	}
	if r.dry {
		what = "this was a dry run"
	}
	return &partly{cause: r.failure, public: &api.Error{
		Code:   publicError(r.failure).Code,
		Detail: fmt.Sprintf("%d of %d documents were not applied, %d more were not tried; %s", r.failed, len(r.results), left, what),
	}}
}

// partly is a failure of one object among many.
type partly struct {
	public *api.Error
	cause  error
}

// Error implements error.
func (p *partly) Error() string { return p.public.Detail }

// Unwrap gives the summary first; the cause decides on the exit code.
func (p *partly) Unwrap() []error { return []error{p.public, p.cause} }
