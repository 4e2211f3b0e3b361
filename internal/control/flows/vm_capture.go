package flows

import (
	"context"
	"io"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/image/disk"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/blob"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/sparse"
)

// CaptureParams are the parameters of vm.capture.
type CaptureParams struct {
	// Disk is the disk that is read.
	Disk id.ID `json:"disk"`
	// Image gets what it holds.
	Image id.ID `json:"image"`
}

// VMCapture makes an image of a disk of a VM that rests. Both were taken for this job
// when the request was accepted: nobody starts or changes the VM meanwhile. Nothing of
// the VM changes.
//
// It unwinds to an image that waits for its file.
func VMCapture() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: vm.JobCapture,
		Steps: []workflow.Step[Env]{
			{Name: "find node", Do: onceReported("the disk is read", nothing), Cancellable: true},
			{Name: "read disk", Do: captureDisk, Undo: dropCaptured, Cancellable: true},
		},
		Finish: finishCapture,
	}
}

func captureDisk(ctx context.Context, r *run) (any, error) {
	var p CaptureParams
	if err := r.Params(&p); err != nil {
		return nil, err
	}
	v, err := usable(ctx, r)
	if err != nil {
		return nil, err
	}
	img, err := r.Env.Store.ImageByID(ctx, p.Image)
	if err != nil {
		return nil, err
	}
	if _, done := img.File(image.RoleDisk); done {
		return nil, nil
	}
	var size int64
	for _, d := range v.Volumes {
		if d.ID == p.Disk {
			size = d.SizeBytes
		}
	}
	made, err := readDisk(ctx, r, v, p.Disk, size)
	if err != nil {
		return nil, err
	}
	defer made.Discard()
	return nil, keepFile(ctx, r, made.SHA256, func(tx *store.Tx) error {
		if err := made.Keep(); err != nil {
			return err
		}
		return tx.ImageFilePut(ctx, img, image.File{Role: image.RoleDisk, SHA256: made.SHA256, SizeBytes: made.Size, Format: "qcow2", VirtualBytes: size})
	})
}

// readDisk has the node send a disk, and writes it into a hidden file.
func readDisk(ctx context.Context, r *run, v vm.View, which id.ID, size int64) (*blob.Upload, error) {
	var length int64
	return r.Env.Content.Build(ctx, func(to io.WriterAt) (err error) {
		stream, err := r.Env.Files.Read(ctx, func(ticket string) error {
			return r.Env.Nodes.Call(ctx, *v.Intent.NodeID, &nodelink.ReadVolume{VM: v.Intent.ID, Volume: which, Ticket: ticket}, nil)
		})
		if err != nil {
			return err
		}
		defer func() { _ = stream.Close() }()
		stop := context.AfterFunc(ctx, func() { _ = stream.Close() })
		defer stop()
		w := disk.NewWriter(to, size)
		err = sparse.Receive(stream, size, func(at int64, p []byte) error {
			if err := r.Progress(ctx, int(at*shareWriting/size)); err != nil {
				return err
			}
			return w.Tell(at, p)
		})
		if err != nil {
			return broken(err)
		}
		length, err = w.Close()
		return err
	}, func(at int64) error { return r.Progress(ctx, shareWriting+int(at*shareHashing/max(length, 1))) })
}

// broken gives a stream's failure a code: it is worth another try.
func broken(err error) error {
	if errs.CodeOf(err) != errs.Internal {
		return err
	}
	return errs.New(errs.NodeUnreachable, "the node did not send the disk to its end").Because(err)
}

// dropCaptured takes the file back from the image.
func dropCaptured(ctx context.Context, r *run) error {
	var p CaptureParams
	if err := r.Params(&p); err != nil {
		return err
	}
	return dropRole(ctx, r, p.Image, image.RoleDisk)
}

// finishCapture lets both go.
func finishCapture(ctx context.Context, tx pgx.Tx, r *run, _ workflow.Outcome) error {
	t := store.On(tx)
	var p CaptureParams
	if err := r.Params(&p); err != nil {
		return err
	}
	v, err := t.VMByID(ctx, r.Job.Target.ID)
	if err != nil {
		return err
	}
	if err := t.VMLetGo(ctx, v.Intent, r.Job.ID); err != nil {
		return err
	}
	return letGo(ctx, t, *r.Job.ProjectID, p.Image)
}
