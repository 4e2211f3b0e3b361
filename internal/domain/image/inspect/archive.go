package inspect

import (
	"io"

	"github.com/novacron/novacron/internal/domain/image/ova"
)

// archive refuses archives: one that hides something by naming what it hides, an
// appliance by saying how it is imported.
func archive(r io.ReaderAt, head []byte, size int64) error {
	if !ova.Is(head) {
		return nil
	}
	a, err := ova.Open(r, size)
	if err != nil {
		return err
	}
	if _, err := a.Machine(); err != nil {
		return err
	}
	return refuse("the file is an appliance (OVA), not a disk: 'novacron vm import' makes a virtual machine of it")
}
