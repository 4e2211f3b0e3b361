package flows

import (
	"github.com/novacron/novacron/internal/engine/workflow"
)

// All lists every workflow.
func All() []workflow.Flow[Env] {
	return []workflow.Flow[Env]{
		VMCreate(), VMStart(), VMStop(), VMRestart(), VMPause(), VMResume(), VMSuspend(), VMDelete(),
		VMMigrate(), VMMigrateLive(), VMMigrateWarm(), VMClone(), VMCapture(), VMDiskAdd(), VMDiskGrow(), VMDiskRemove(), VMLimit(), VMCDROM(),
		ImageDelete(), ImageConvert(), ImageFetch(), NodeDrain(), NodeReturn(),
	}
}

// Bound ties every workflow to its environment.
func Bound(env Env) []workflow.Bound {
	var out []workflow.Bound
	for _, f := range All() {
		out = append(out, workflow.Bind(held(f), env))
	}
	return out
}
