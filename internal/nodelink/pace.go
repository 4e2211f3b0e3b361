package nodelink

import "github.com/novacron/novacron/internal/vocab/id"

// PaceMove has the source of a migration send no more than so many bytes per second from now
// on; 0 for as many as it can. Of one that is not under way from there it changes nothing.
type PaceMove struct {
	VM             id.ID `json:"vm"`
	Migration      id.ID `json:"migration"`
	BytesPerSecond int64 `json:"bytes_per_second"`
}

// Method implements Command.
func (*PaceMove) Method() string { return "pace_move" }
