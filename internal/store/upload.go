package store

import (
	"context"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func toUpload(r query.ImageUpload) image.Upload {
	u := image.Upload{
		ID: r.ID, ProjectID: r.ProjectID, ImageID: r.ImageID, Role: image.Role(r.Role), Principal: r.Principal, SizeBytes: r.SizeBytes,
		Offset: r.OffsetBytes, HashState: r.HashState, Server: r.Server, CreatedAt: r.CreatedAt, ExpiresAt: r.ExpiresAt,
	}
	u.Validator = r.Validator
	if r.Sha256 != nil {
		u.SHA256 = *r.Sha256
	}
	return u
}

// Uploads lists a principal's open uploads of an image.
func (s *Store) Uploads(ctx context.Context, i id.ID, principal string) ([]image.Upload, error) {
	return uploads(ctx, s.q, i, principal)
}

// Uploads lists a principal's open uploads of an image.
func (t *Tx) Uploads(ctx context.Context, i id.ID, principal string) ([]image.Upload, error) {
	return uploads(ctx, t.q, i, principal)
}

func uploads(ctx context.Context, q *query.Queries, i id.ID, principal string) ([]image.Upload, error) {
	rows, err := q.UploadList(ctx, query.UploadListParams{ImageID: i, Principal: principal})
	out := make([]image.Upload, len(rows))
	for k, r := range rows {
		out[k] = toUpload(r)
	}
	return out, pgtx.Map(err)
}

// Upload finds a principal's upload of an image; another principal's is not
// there.
func (s *Store) Upload(ctx context.Context, i id.ID, principal, ref string) (image.Upload, error) {
	u, err := id.Parse(ref)
	if err != nil {
		return image.Upload{}, NotFound("upload", ref)
	}
	r, err := s.q.UploadGet(ctx, query.UploadGetParams{ID: u, ImageID: i, Principal: principal})
	return toUpload(r), one(err, "upload", ref)
}

// UploadOfJob finds what a job reads from elsewhere.
func (s *Store) UploadOfJob(ctx context.Context, job id.ID) (image.Upload, error) {
	r, err := s.q.UploadOfJob(ctx, job)
	return toUpload(r), one(err, "upload", job.String())
}

// UploadIs records what an upload's file is, and that nothing of it is there.
func (t *Tx) UploadIs(ctx context.Context, u image.Upload) error {
	_, err := t.q.UploadIs(ctx, query.UploadIsParams{ID: u.ID, SizeBytes: u.SizeBytes, Validator: u.Validator})
	return pgtx.Map(err)
}

// UploadInsert records an upload nothing of which has arrived.
func (t *Tx) UploadInsert(ctx context.Context, u image.Upload) error {
	p := query.UploadInsertParams{
		ID: u.ID, ProjectID: u.ProjectID, ImageID: u.ImageID, Role: query.ImageRole(u.Role), Principal: u.Principal, SizeBytes: u.SizeBytes,
	}
	if u.SHA256 != "" {
		p.Sha256 = &u.SHA256
	}
	return pgtx.Map(t.q.UploadInsert(ctx, p))
}

// UploadProgress records how far an upload came, if it still stands where the
// writer believes; errs.Conflict otherwise. It puts off its end by a day.
func (t *Tx) UploadProgress(ctx context.Context, u image.Upload, believed int64) error {
	n, err := t.q.UploadProgress(ctx, query.UploadProgressParams{
		ID: u.ID, OffsetBytes: u.Offset, HashState: u.HashState, Server: u.Server, Believed: believed,
	})
	if err == nil && n == 0 {
		return errs.New(errs.Conflict, "the upload ended, or goes on over another connection")
	}
	return pgtx.Map(err)
}

// UploadDelete removes an upload's record; a missing one is no error.
func (t *Tx) UploadDelete(ctx context.Context, u id.ID) error {
	_, err := t.q.UploadDelete(ctx, u)
	return pgtx.Map(err)
}

// UploadsEnd removes the records of all uploads of one file.
func (t *Tx) UploadsEnd(ctx context.Context, i id.ID, role image.Role) error {
	return pgtx.Map(t.q.UploadsEnd(ctx, query.UploadsEndParams{ImageID: i, Role: query.ImageRole(role)}))
}

// UploadExpire removes the records of uploads of which nothing arrived for a day.
func (s *Store) UploadExpire(ctx context.Context) (int64, error) {
	n, err := s.q.UploadExpire(ctx)
	return n, pgtx.Map(err)
}

// UploadIDs lists all uploads there are.
func (s *Store) UploadIDs(ctx context.Context) (map[id.ID]bool, error) {
	all, err := s.q.UploadIDs(ctx)
	out := make(map[id.ID]bool, len(all))
	for _, u := range all {
		out[u] = true
	}
	return out, pgtx.Map(err)
}
