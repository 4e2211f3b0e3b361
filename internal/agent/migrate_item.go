package agent

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/sparse"
)

// The kinds of items.
const (
	itemVolume    = "volume"
	itemVariables = "variables"
	itemMemory    = "memory"
	itemEnd       = "end"
)

// item is the head of one, before what it holds.
type item struct {
	Kind string `json:"kind"`
	ID   id.ID  `json:"id,omitzero"`
	Name string `json:"name,omitempty"`
	// Size in bytes, of a file.
	Size int64 `json:"size,omitempty"`
	// Items is how many came before, in the last one.
	Items int `json:"items,omitempty"`
}

// maxItem bounds the head of an item.
const maxItem = 4096

type itemWriter struct {
	to io.Writer
	n  int
}

func (w *itemWriter) begin(i item) error {
	if i.Kind != itemEnd {
		w.n++
	}
	b, err := json.Marshal(i)
	if err != nil {
		return err
	}
	_, err = w.to.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

// file writes a file, without its holes.
func (w *itemWriter) file(ctx context.Context, k kept) error {
	f, err := os.OpenFile(k.path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.begin(item{Kind: k.kind, Name: k.name, Size: info.Size()}); err != nil {
		return err
	}
	return sparse.Send(w.to, info.Size(), func(tell func(int64, []byte) error) error { return sparse.Pieces(ctx, f, info.Size(), tell) })
}

func (w *itemWriter) end(variables []string) error {
	return w.begin(item{Kind: itemEnd, Name: strings.Join(variables, ","), Items: w.n})
}

func readItem(from *bufio.Reader) (item, error) {
	var i item
	var head [4]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return i, errors.Join(sparse.ErrBroken, err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxItem {
		return i, errs.New(errs.InvalidImage, "the node that has the VM sends something that is no item of one")
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(from, b); err != nil {
		return i, errors.Join(sparse.ErrBroken, err)
	}
	if err := json.Unmarshal(b, &i); err != nil {
		return i, errs.New(errs.InvalidImage, "the node that has the VM sends something that is no item of one").Because(err)
	}
	return i, nil
}

// receiveFile writes a file anew, durably.
func receiveFile(ctx context.Context, path string, size int64, from *bufio.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return errs.New(errs.HostFailure, "a file of the VM cannot be made").Because(err)
	}
	err = f.Truncate(size)
	if err == nil {
		err = sparse.Receive(from, size, func(at int64, p []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			_, err := f.WriteAt(p, at)
			return err
		})
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return errs.New(errs.NoSpace, "there is no space left for the VM on this node").Because(err)
	}
	return err
}
