package store

import (
	"context"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/id"
)

// ConversionInsert records a file that a job converts.
func (t *Tx) ConversionInsert(ctx context.Context, c image.Conversion) error {
	return pgtx.Map(t.q.ImageImportInsert(ctx, query.ImageImportInsertParams{
		JobID: c.JobID, ImageID: c.ImageID, Role: query.ImageRole(c.From.Role), Sha256: c.From.SHA256,
		SizeBytes: c.From.SizeBytes, Format: c.From.Format, VirtualBytes: c.From.VirtualBytes,
	}))
}

// Conversion gives what a job converts; errs.NotFound when that is nothing, or done.
func (s *Store) Conversion(ctx context.Context, job id.ID) (image.Conversion, error) {
	r, err := s.q.ImageImportGet(ctx, job)
	return image.Conversion{
		JobID: r.JobID, ImageID: r.ImageID,
		From: image.File{Role: image.Role(r.Role), SHA256: r.Sha256, SizeBytes: r.SizeBytes, Format: r.Format, VirtualBytes: r.VirtualBytes},
	}, one(err, "conversion of job", job.String())
}

// ConversionDelete forgets what a job converts; a missing one is no error.
func (t *Tx) ConversionDelete(ctx context.Context, job id.ID) error {
	return pgtx.Map(t.q.ImageImportDelete(ctx, job))
}

// ImageSumUsed tells, under ImageSumLock, whether any image has a content, or is
// being made from it.
func (t *Tx) ImageSumUsed(ctx context.Context, sum string) (bool, error) {
	used, err := t.q.ImageSumAny(ctx, sum)
	return used, pgtx.Map(err)
}

// ImageFileDelete takes a file from an image that is not ready; a missing one is no
// error.
func (t *Tx) ImageFileDelete(ctx context.Context, i id.ID, role image.Role) error {
	if err := t.q.ImageFileDelete(ctx, query.ImageFileDeleteParams{ImageID: i, Role: query.ImageRole(role)}); err != nil {
		return pgtx.Map(err)
	}
	return t.ImageTouch(ctx, i)
}
