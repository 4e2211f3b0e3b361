package flows

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// JobImageDelete is the kind of the job that deletes an image.
const JobImageDelete = "image.delete"

// ImageDelete removes an image that no VM is made from: from the caches of the
// nodes that report, from this server, and its row. A node that does not report
// keeps its copy. There is no way back:
// the image was marked when the request was accepted, so nobody can use it any
// more.
func ImageDelete() workflow.Flow[Env] {
	return workflow.Flow[Env]{
		Name: JobImageDelete,
		Steps: []workflow.Step[Env]{
			{Name: "drop from nodes", NoReturn: true, Do: dropFromNodes},
			{Name: "remove files", Do: removeFiles},
		},
		Finish: func(ctx context.Context, tx pgx.Tx, r *run, _ workflow.Outcome) error {
			return store.On(tx).ImageDelete(ctx, image.Image{ID: r.Job.Target.ID, Name: r.Job.Target.Name, ProjectID: *r.Job.ProjectID, JobID: &r.Job.ID})
		},
	}
}

// unshared lists the image's files that no other image has.
func unshared(ctx context.Context, r *run) ([]string, error) {
	img, err := r.Env.Store.ImageByID(ctx, r.Job.Target.ID)
	if err != nil {
		return nil, err
	}
	var sums []string
	for _, f := range img.Files {
		shared, err := r.Env.Store.ImageSumShared(ctx, f.SHA256, img.ID)
		if err != nil {
			return nil, err
		}
		if !shared {
			sums = append(sums, f.SHA256)
		}
	}
	return sums, nil
}

func dropFromNodes(ctx context.Context, r *run) (any, error) {
	sums, err := unshared(ctx, r)
	if err != nil || len(sums) == 0 {
		return nil, err
	}
	nodes, err := r.Env.Candidates.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		if !n.Reporting {
			continue
		}
		err := r.Env.Nodes.Call(ctx, n.ID, &nodelink.DropImages{SHA256: sums}, nil)
		if errs.Is(err, errs.NodeUnreachable) {
			// its lease has not run out yet, or its session is with another server
			return nil, workflow.Wait("node "+n.Name+" cannot be reached: the image is removed when it can be, or when the node no longer reports", lookAgain)
		}
		if err != nil && !errs.Is(err, errs.InUse) {
			return nil, err
		}
	}
	return nil, nil
}

// removeFiles looks and removes under the lock of each content, since an upload
// of the same bytes may be under way.
func removeFiles(ctx context.Context, r *run) (any, error) {
	img, err := r.Env.Store.ImageByID(ctx, r.Job.Target.ID)
	if err != nil {
		return nil, err
	}
	for _, f := range img.Files {
		err := write(ctx, r, func(tx *store.Tx) error {
			if err := tx.ImageSumLock(ctx, f.SHA256); err != nil {
				return err
			}
			shared, err := tx.ImageSumShared(ctx, f.SHA256, img.ID)
			if err != nil || shared {
				return err
			}
			return r.Env.Files.Remove(f.SHA256)
		})
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}
