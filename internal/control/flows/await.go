package flows

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// How long a job that waits for a node sleeps between two looks. A node's hello,
// and its removal by force, wake the job at once: the look is for what no one
// tells, such as a session with another server than the one that looks.
const (
	lookForNode = 10 * time.Second
	// lookAgain is for a node that reports and cannot be reached from here.
	lookAgain = time.Second
)

// away tells whether the VM's node does not report.
func away(r *run, v vm.View) bool {
	return v.Node != nil && !r.Env.Candidates.Reporting(v.Node.ID)
}

// awaitNode parks the job until the VM's node returns; what says what is done
// then.
func awaitNode(v vm.View, what string) error {
	return workflow.Wait("node "+v.Node.Name+" does not report: "+what+
		" when it returns, or lost when the node is removed by force", lookForNode)
}

// onceReported makes a step wait for the VM's node before it begins; what says
// what is done then. Nothing that nobody can tell the outcome of is begun on a
// node that is away.
func onceReported(what string, do func(context.Context, *run) (any, error)) func(context.Context, *run) (any, error) {
	return func(ctx context.Context, r *run) (any, error) {
		v, err := usable(ctx, r)
		if err != nil {
			return nil, err
		}
		if away(r, v) {
			return nil, awaitNode(v, what)
		}
		return do(ctx, r)
	}
}

// untilReached makes a step beyond the point of no return wait for the VM's node
// for as long as it takes, instead of counting failures: a deletion that was
// accepted is never given up because a host is away. what says what is done then.
func untilReached(what string, do func(context.Context, *run) (any, error)) func(context.Context, *run) (any, error) {
	return func(ctx context.Context, r *run) (any, error) {
		out, err := do(ctx, r)
		if !errs.Is(err, errs.NodeUnreachable) && !errs.Is(err, errs.Timeout) {
			return out, err
		}
		v, failed := load(ctx, r)
		switch {
		case failed != nil:
			return nil, failed
		case v.Node == nil:
			return do(ctx, r) // removed by force meanwhile
		case away(r, v):
			return nil, workflow.Wait("node "+v.Node.Name+" does not report: "+what+" when it returns, or when the node is removed by force", lookForNode)
		case errs.Is(err, errs.NodeUnreachable):
			return nil, workflow.Wait("node "+v.Node.Name+" reports and cannot be reached from this server: "+what+" when it can be", lookAgain)
		default:
			return nil, err
		}
	}
}
