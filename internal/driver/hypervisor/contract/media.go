package contract

import (
	"context"
	"regexp"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// MediaChanger is what a driver also is whose Capabilities say Media.
type MediaChanger interface {
	// ChangeMedium makes m what is in the drive of a live machine, and nothing else; nil
	// empties it. What is in it already succeeds. The guest is asked for a medium that it
	// has in use, and errs.InUse is the answer when it keeps it; with force its tray is
	// opened all the same. A guest that is halted cannot be asked: what it does not have in
	// use changes, and it finds that when it goes on. errs.Unsupported for a machine without a drive. Whatever it was
	// broken off by, the same call again, or one with what was there before, settles it,
	// and then the hypervisor holds no other medium.
	ChangeMedium(ctx context.Context, r Ref, m *Medium, force bool) error
	// Medium tells which medium is in the drive of a live machine, as the hypervisor says;
	// empty for none, and for a machine without a drive.
	Medium(ctx context.Context, r Ref) (id string, err error)
}

// Medium is an image, raw, that guests only read. Several machines may have it in their
// drives at once.
type Medium struct {
	// ID tells contents apart: a SHA-256 in hex.
	ID   string `json:"id"`
	File File   `json:"file"`
}

var mediumForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Validate refuses a medium that no drive takes.
func (m Medium) Validate() error {
	if !mediumForm.MatchString(m.ID) {
		return errs.New(errs.InvalidField, "%q names no medium: it is a SHA-256", errs.Clip(m.ID))
	}
	if err := m.File.validate(); err != nil {
		return err
	}
	if m.File.Format != "raw" {
		return errs.New(errs.InvalidField, "the medium %s is not raw", m.ID[:12])
	}
	return nil
}

func (m Machine) validateMedium() error {
	switch {
	case m.Medium == nil:
		return nil
	case !m.Drive:
		return errs.New(errs.InvalidField, "a medium needs a drive")
	default:
		return m.Medium.Validate()
	}
}
