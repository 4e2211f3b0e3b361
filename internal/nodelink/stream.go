package nodelink

import (
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// OpenConsole joins the serial console to a bulk stream.
type OpenConsole struct {
	VM     id.ID          `json:"vm"`
	Epoch  gen.OwnerEpoch `json:"owner_epoch"`
	Ticket string         `json:"ticket"`
}

// Method implements Command.
func (*OpenConsole) Method() string { return "open_console" }

// OpenLog joins the serial log to a bulk stream.
type OpenLog struct {
	VM     id.ID  `json:"vm"`
	Follow bool   `json:"follow"`
	Ticket string `json:"ticket"`
}

// Method implements Command.
func (*OpenLog) Method() string { return "open_log" }

// OpenDisplay joins a VM's screen to a bulk stream: the VNC protocol, without a
// password.
type OpenDisplay struct {
	VM     id.ID          `json:"vm"`
	Epoch  gen.OwnerEpoch `json:"owner_epoch"`
	Ticket string         `json:"ticket"`
	// ViewOnly leaves out what reaches the guest.
	ViewOnly bool `json:"view_only,omitempty"`
}

// Method implements Command.
func (*OpenDisplay) Method() string { return "open_display" }

// OpenScreenshot sends what is on a VM's screen over a bulk stream, as PNG.
type OpenScreenshot struct {
	VM     id.ID          `json:"vm"`
	Epoch  gen.OwnerEpoch `json:"owner_epoch"`
	Ticket string         `json:"ticket"`
}

// Method implements Command.
func (*OpenScreenshot) Method() string { return "open_screenshot" }

// ReadVolume sends what a disk of a VM holds over a bulk stream, as sparse.Send does.
// Refused while the VM has a process.
type ReadVolume struct {
	VM     id.ID  `json:"vm"`
	Volume id.ID  `json:"volume"`
	Ticket string `json:"ticket"`
}

// Method implements Command.
func (*ReadVolume) Method() string { return "read_volume" }
