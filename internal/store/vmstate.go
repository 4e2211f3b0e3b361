package store

import (
	"fmt"
	"strings"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/id"
)

// A VM's state is never stored: vm.Appear computes it. To list VMs by state, the
// database has to compute the same of the rows that vmList joins, so that pages
// are full and their cost does not grow with what is left out. Appear is the
// definition; TestStateInTheDatabaseIsAppear holds this expression to it.

// Fragments of the expression. Columns are those of vmList.
const (
	// onNode: vm.Phase.OnNode.
	onNodeSQL = `o.phase IN ('starting', 'running', 'paused', 'stopping')`
	// observed: vm.observed.
	observedSQL = `(CASE o.phase WHEN 'exited' THEN 'stopped' WHEN 'crashed' THEN 'failed' ELSE o.phase::text END)`
	// current: the observation is of the incarnation that was decided last.
	currentSQL = `(o.owner_epoch IS NOT NULL AND o.owner_epoch = v.owner_epoch)`

	launchingSQL = `CASE WHEN ` + currentSQL + ` AND ` + onNodeSQL + ` THEN ` + observedSQL + ` ELSE 'starting' END`
	endingSQL    = `CASE WHEN ` + currentSQL + ` AND NOT ` + onNodeSQL + ` THEN ` + observedSQL + ` ELSE 'stopping' END`
	atRestSQL    = `CASE
    WHEN v.deleting THEN 'deleting'
    WHEN ` + currentSQL + ` AND ` + onNodeSQL + ` THEN ` + observedSQL + `
    WHEN v.failure_code IS NOT NULL THEN 'failed'
    WHEN ` + currentSQL + ` THEN ` + observedSQL + `
    WHEN v.node_id IS NULL THEN 'pending'
    ELSE 'stopped' END`
	createSQL = `CASE
    WHEN v.node_id IS NULL THEN 'pending'
    WHEN v.owner_epoch = 0 THEN 'provisioning'
    ELSE ` + launchingSQL + ` END`
	// mayRun: vm.mayHaveProcess.
	mayRunSQL = `(coalesce(` + onNodeSQL + `, false) OR (v.owner_epoch > 0 AND (o.owner_epoch IS NULL OR o.owner_epoch < v.owner_epoch)))`
)

// duringJobSQL says what each kind of job makes of a VM it holds; any other kind
// leaves it as it is at rest.
var duringJobSQL = []struct{ kind, expr string }{
	{vm.JobCreate, createSQL},
	{vm.JobStart, launchingSQL},
	{vm.JobRestart, launchingSQL},
	{vm.JobStop, endingSQL},
	{vm.JobDelete, `'deleting'`},
}

// stateSQL is vm.Appear(...).State; reporting is the place of the parameter that
// holds the reporting nodes.
func stateSQL(reporting string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "(CASE WHEN v.node_id IS NOT NULL AND v.node_id <> ALL(%s::uuid[]) AND %s THEN 'unknown'\n", reporting, mayRunSQL)
	fmt.Fprintf(&b, "  WHEN v.lost_node_id IS NOT NULL AND j.kind IS DISTINCT FROM '%s' THEN 'failed'\n", vm.JobDelete)
	b.WriteString("  WHEN j.state = 'needs_attention' THEN 'failed'\n")
	fmt.Fprintf(&b, "  WHEN j.kind = '%s' AND j.target_id = v.id THEN %s\n", vm.JobClone, createSQL)
	for _, k := range duringJobSQL {
		fmt.Fprintf(&b, "  WHEN j.kind = '%s' THEN %s\n", k.kind, k.expr)
	}
	b.WriteString("  ELSE " + atRestSQL + " END)")
	return b.String()
}

// appearsAs is the filter by state. Whether a node reports is a server's own
// judgement, so that it comes along as a parameter.
func appearsAs(reporting []id.ID) filter {
	return func(value string, param func(any) string) (string, error) {
		all, err := choices(value, "state", vmStates())
		if err != nil {
			return "", err
		}
		if reporting == nil {
			reporting = []id.ID{}
		}
		return fmt.Sprintf("%s = ANY(%s::text[])", stateSQL(param(reporting)), param(all)), nil
	}
}
