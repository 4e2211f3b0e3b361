package sim

import (
	"bufio"
	"context"
	"encoding/json"
	"io"

	"github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// maxDocument bounds what is known of a volume.
const maxDocument = 4096

// sent is a volume on a stream, a line.
type sent struct {
	SizeBytes     int64  `json:"size_bytes"`
	HasBase       bool   `json:"has_base,omitempty"`
	ContentSHA256 string `json:"content_sha256,omitempty"`
}

// Send implements contract.Driver.
func (d *Driver) Send(ctx context.Context, v id.ID, to io.Writer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(ctx, "send"); err != nil {
		return err
	}
	f, err := d.readFile(v)
	if err != nil {
		return err
	}
	b, err := json.Marshal(sent{SizeBytes: f.SizeBytes, HasBase: f.BasePath != "", ContentSHA256: f.ContentSHA256})
	if err == nil {
		_, err = to.Write(append(b, '\n'))
	}
	return err
}

// Receive implements contract.Driver.
func (d *Driver) Receive(ctx context.Context, s contract.Spec, from *bufio.Reader) (contract.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(ctx, "receive"); err != nil {
		return contract.Volume{}, err
	}
	if _, err := d.read(s.ID); !errs.Is(err, errs.NotFound) {
		return contract.Volume{}, errs.New(errs.AlreadyExists, "volume %s exists on this node", s.ID).Because(err)
	}
	is, err := readSent(s.ID, from)
	if err != nil {
		return contract.Volume{}, err
	}
	if is.ContentSHA256 != "" && s.SizeBytes == 0 {
		if err := d.writeFile(s.ID, file{SizeBytes: is.SizeBytes, ContentSHA256: is.ContentSHA256}); err != nil {
			return contract.Volume{}, err
		}
		return d.read(s.ID)
	}
	if !is.fits(s) {
		return contract.Volume{}, errs.New(errs.InvalidImage, "what came for volume %s is of another size or kind than is on record", s.ID)
	}
	if err := check(s); err != nil {
		return contract.Volume{}, err
	}
	want := volume(s, d.path(s.ID))
	return want, d.write(want)
}

// fits tells whether what came is the image that is wanted.
func (is sent) fits(s contract.Spec) bool {
	return is.ContentSHA256 == "" && is.SizeBytes == s.SizeBytes && is.HasBase == (s.Base != nil)
}

func readSent(v id.ID, from *bufio.Reader) (is sent, err error) {
	line, err := from.ReadSlice('\n')
	if err != nil || len(line) > maxDocument {
		return is, errs.New(errs.HostFailure, "the stream of volume %s broke off", v).Because(err)
	}
	if err := json.Unmarshal(line, &is); err != nil {
		return is, errs.New(errs.InvalidImage, "what came for volume %s is no volume", v).Because(err)
	}
	return is, nil
}
