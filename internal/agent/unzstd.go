package agent

import (
	"bytes"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/novacron/novacron/internal/domain/image/disk"
)

// widestWindow bounds what a packed cluster makes the agent remember: QEMU packs with
// windows of 2 MiB, which is as large as clusters are.
const widestWindow = 8 << 20

// unzstd unpacks clusters that are packed with zstd, one at a time.
func unzstd() disk.Unpack {
	var d *zstd.Decoder
	return func(cluster, packed []byte) error {
		if d == nil {
			var err error
			// one at a time, so that it has no goroutine that would have to be ended
			if d, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(widestWindow), zstd.WithDecoderLowmem(true)); err != nil {
				return err
			}
		}
		if err := d.Reset(bytes.NewReader(packed)); err != nil {
			return err
		}
		_, err := io.ReadFull(d, cluster)
		return err
	}
}
