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
	onNodeSQL = `o.phase IN ('starting', 'incoming', 'running', 'paused', 'stopping')`
	// observed: vm.observed.
	observedSQL = `(CASE o.phase WHEN 'exited' THEN 'stopped' WHEN 'crashed' THEN 'failed' WHEN 'incoming' THEN 'migrating' ELSE o.phase::text END)`
	// current: the observation is of the incarnation that was decided last, or later.
	currentSQL = `(o.owner_epoch IS NOT NULL AND o.owner_epoch >= v.owner_epoch)`

	launchingSQL = `CASE WHEN ` + currentSQL + ` AND ` + onNodeSQL + ` THEN ` + observedSQL + ` ELSE 'starting' END`
	endingSQL    = `CASE WHEN ` + currentSQL + ` AND NOT ` + onNodeSQL + ` THEN ` + observedSQL + ` ELSE 'stopping' END`
	atRestSQL    = `CASE
    WHEN v.deleting THEN 'deleting'
    WHEN ` + currentSQL + ` AND ` + onNodeSQL + ` THEN ` + observedSQL + `
    WHEN o.phase = 'suspended' THEN 'suspended'
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
	{vm.JobSuspend, endingSQL},
	{vm.JobDelete, `'deleting'`},
	{vm.JobMigrate, `'migrating'`},
	{vm.JobMigrateLive, `'migrating'`},
	{vm.JobMigrateWarm, `'migrating'`},
}

// Judged is what a server judges of nodes by itself.
type Judged struct {
	// Reporting are those whose lease is good.
	Reporting []id.ID
	// Held are those in recovery hold; AllHeld: every one is.
	Held    []id.ID
	AllHeld bool
}

// heldSQL tells whether the VM's node is held.
func (j Judged) heldSQL(param func(any) string) string {
	switch {
	case j.AllHeld:
		return "true"
	case len(j.Held) == 0:
		return "false"
	default:
		return "v.node_id = ANY(" + param(j.Held) + "::uuid[])"
	}
}

// stateSQL is vm.Appear(...).State.
func (j Judged) stateSQL(param func(any) string) string {
	if j.Reporting == nil {
		j.Reporting = []id.ID{}
	}
	reporting := param(j.Reporting)
	var b strings.Builder
	fmt.Fprintf(&b, "(CASE WHEN v.node_id IS NOT NULL AND v.owner_epoch > 0 AND o.owner_epoch IS NULL AND %s THEN 'unknown'\n", j.heldSQL(param))
	fmt.Fprintf(&b, "  WHEN v.node_id IS NOT NULL AND v.node_id <> ALL(%s::uuid[]) AND %s THEN 'unknown'\n", reporting, mayRunSQL)
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
func appearsAs(j Judged) filter {
	return func(value string, param func(any) string) (string, error) {
		all, err := choices(value, "state", vmStates())
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s = ANY(%s::text[])", j.stateSQL(param), param(all)), nil
	}
}
