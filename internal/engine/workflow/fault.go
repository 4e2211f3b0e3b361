package workflow

import (
	"errors"

	"github.com/novacron/novacron/internal/vocab/id"
)

// ErrKilled returned by Options.Fault makes the executor drop everything
// without another write, as kill -9 does. Run then returns ErrKilled.
var ErrKilled = errors.New("workflow: the executor was killed by a test")

// Moment is a place in the life of a job where a test may inject a fault.
type Moment string

// The moments, in the order they come.
const (
	BeforeDo     Moment = "before do"
	AfterDo      Moment = "after do" // the effect is there, the journal does not know
	BeforeUndo   Moment = "before undo"
	AfterUndo    Moment = "after undo"
	BeforeFinish Moment = "before finish"
	AfterFinish  Moment = "after finish" // committed
)

// Point is one moment of one job.
type Point struct {
	Moment Moment
	Job    id.ID
	Flow   string
	Step   string // empty at finish
	// Fence tells claims of one job apart.
	Fence int64
}
