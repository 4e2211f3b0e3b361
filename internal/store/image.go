package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

var imageList = lister{
	columns: `i.id, i.project_id, i.name, i.kind::text, i.state::text, i.cmdline, i.job_id,
  coalesce((SELECT jsonb_agg(jsonb_build_object('role', f.role, 'sha256', f.sha256, 'size_bytes', f.size_bytes,
    'format', f.format, 'virtual_bytes', f.virtual_bytes, 'source_sha256', f.source_sha256, 'source_format', f.source_format) ORDER BY f.role) FROM image_files f WHERE f.image_id = i.id), '[]'),
  ARRAY(SELECT n.name FROM image_names n WHERE n.image_id = i.id AND n.alias ORDER BY n.name),
  i.revision, i.created_at, i.updated_at`,
	from: "images i",
	filters: map[string]filter{
		"name": named("i.name"), "kind": oneOf("i.kind::text", "kind", string(image.Disk), string(image.Kernel), string(image.ISO)),
		"state": oneOf("i.state::text", "state", imageStates()...),
	},
	sorts:       map[string]sortKey{"name": byName("i.name"), "created_at": byID("i.id")},
	defaultSort: "name",
	idColumn:    "i.id",
}

func scanImage(rows pgx.Rows) (image.Image, Next, error) {
	var i image.Image
	var next Next
	var files []byte
	err := rows.Scan(&next.Key, &i.ID, &i.ProjectID, &i.Name, &i.Kind, &i.State, &i.Cmdline, &i.JobID, &files, &i.Aliases,
		&i.Revision, &i.CreatedAt, &i.UpdatedAt)
	if err != nil {
		return i, next, err
	}
	next.ID = i.ID
	if i.Files, err = readImageFiles(files); err != nil {
		return i, next, errs.New(errs.Internal, "the record of image %q is damaged", i.Name).Because(err)
	}
	return i, next, nil
}

// ImageList gives a page of a project's images.
func (s *Store) ImageList(ctx context.Context, project id.ID, p Page) ([]image.Image, *Next, error) {
	l := imageList
	l.where = []string{"i.project_id = $1"}
	return listRows(ctx, s.pool, l, p, scanImage, project)
}

// ImageGet finds a project's image by id, name or alias.
func (s *Store) ImageGet(ctx context.Context, project id.ID, ref string) (image.Image, error) {
	return imageGet(ctx, s.pool, project, ref)
}

// ImageGet finds an image and locks it until the transaction ends.
func (t *Tx) ImageGet(ctx context.Context, project id.ID, ref string) (image.Image, error) {
	i, err := imageGet(ctx, t, project, ref)
	if err != nil {
		return i, err
	}
	if _, err := t.q.ImageLock(ctx, i.ID); err != nil {
		return i, one(err, "image", ref)
	}
	return imageGet(ctx, t, project, i.ID.String())
}

// ImageByID finds an image of any project, for the control plane's own use.
func (s *Store) ImageByID(ctx context.Context, i id.ID) (image.Image, error) {
	return imageWhere(ctx, s.pool, i.String(), []string{"i.id = $1"}, i)
}

func imageGet(ctx context.Context, db querier, project id.ID, ref string) (image.Image, error) {
	if u, err := id.Parse(ref); err == nil {
		return imageWhere(ctx, db, ref, []string{"i.project_id = $1", "i.id = $2"}, project, u)
	}
	return imageWhere(ctx, db, ref, []string{"i.id = (SELECT n.image_id FROM image_names n WHERE n.project_id = $1 AND n.name = $2)"}, project, ref)
}

func imageWhere(ctx context.Context, db querier, ref string, where []string, args ...any) (image.Image, error) {
	l := imageList
	l.where = where
	found, _, err := listRows(ctx, db, l, Page{Limit: 1}, scanImage, args...)
	if err == nil && len(found) == 0 {
		err = NotFound("image", ref)
	}
	if err != nil {
		return image.Image{}, err
	}
	return found[0], nil
}

// ImageInsert records a new image, still without content.
func (t *Tx) ImageInsert(ctx context.Context, i image.Image) error {
	err := t.q.ImageInsert(ctx, query.ImageInsertParams{
		ID: i.ID, ProjectID: i.ProjectID, Name: i.Name, Kind: query.ImageKind(i.Kind), Cmdline: i.Cmdline,
	})
	if pgtx.Unique(err, "image_names_pkey") {
		return errs.New(errs.AlreadyExists, "there is already an image with the alias %q", i.Name).
			At(errs.Field{Pointer: "/name", Message: "is taken", Got: i.Name}).Because(err)
	}
	if err != nil {
		return taken(err, "images_project_id_name_key", "image", i.Name)
	}
	return t.ImageChanged(ctx, i, "image.created")
}

// ImageChanged tells readers of events that an image changed.
func (t *Tx) ImageChanged(ctx context.Context, i image.Image, kind string) error {
	return t.EventInsert(ctx, Event{
		ProjectID: &i.ProjectID, Kind: kind, ObjectKind: "image", ObjectID: i.ID, ObjectName: i.Name, JobID: i.JobID,
	})
}

// ImageFilePut adds a file to an image that is being uploaded.
func (t *Tx) ImageFilePut(ctx context.Context, i image.Image, f image.File) error {
	p := query.ImageFilePutParams{
		ImageID: i.ID, Role: query.ImageRole(f.Role), Sha256: f.SHA256,
		SizeBytes: f.SizeBytes, Format: f.Format, VirtualBytes: f.VirtualBytes,
	}
	if f.Source != nil {
		p.SourceSha256, p.SourceFormat = &f.Source.SHA256, &f.Source.Format
	}
	err := t.q.ImageFilePut(ctx, p)
	if err != nil {
		return taken(err, "image_files_pkey", "file of image "+i.Name, string(f.Role))
	}
	if err := t.ImageTouch(ctx, i.ID); err != nil {
		return err
	}
	return t.ImageChanged(ctx, i, "image.updated")
}

// ImageTouch notes that something was done about an image.
func (t *Tx) ImageTouch(ctx context.Context, i id.ID) error {
	return pgtx.Map(t.q.ImageTouch(ctx, []id.ID{i}))
}

// ImagesUnfinished lists images, at most a hundred, that wait for files nobody has sent
// anything of for a day.
func (s *Store) ImagesUnfinished(ctx context.Context) ([]id.ID, error) {
	ids, err := s.q.ImagesUnfinished(ctx)
	return ids, pgtx.Map(err)
}

// ImageUnfinished tells whether an image is one of those, and keeps it so until the
// transaction ends.
func (t *Tx) ImageUnfinished(ctx context.Context, i id.ID) (bool, error) {
	is, err := t.q.ImageUnfinished(ctx, i)
	return is, pgtx.Map(err)
}

// ImageSetState moves an image on; job, unless nil, holds it.
func (t *Tx) ImageSetState(ctx context.Context, i image.Image, to image.State, job *id.ID) error {
	if _, err := t.q.ImageSetState(ctx, query.ImageSetStateParams{ID: i.ID, State: query.ImageState(to), JobID: job}); err != nil {
		return pgtx.Map(err)
	}
	i.JobID = job
	return t.ImageChanged(ctx, i, "image.updated")
}

// ImageDelete removes an image's row.
func (t *Tx) ImageDelete(ctx context.Context, i image.Image) error {
	n, err := t.q.ImageDelete(ctx, i.ID)
	if err != nil || n == 0 {
		return pgtx.Map(err)
	}
	return t.ImageChanged(ctx, i, "image.deleted")
}

// ImageUsers names VMs made from an image, up to twenty, and counts them all.
func (t *Tx) ImageUsers(ctx context.Context, i id.ID) (names []string, total int64, err error) {
	rows, err := t.q.ImageUsers(ctx, &i)
	for _, r := range rows {
		names, total = append(names, r.Name), r.Total
	}
	return names, total, pgtx.Map(err)
}

// ImageUse finds a ready image and locks it against deletion until the transaction
// ends. Any number of transactions may: a lock of one's own would make creations of
// one image wait for each other, node and all.
func (t *Tx) ImageUse(ctx context.Context, project id.ID, ref string) (image.Image, error) {
	i, err := imageGet(ctx, t, project, ref)
	if err != nil {
		return i, err
	}
	_, err = t.q.ImageShare(ctx, i.ID)
	if errs.Is(one(err, "image", i.Name), errs.NotFound) {
		return i, errs.New(errs.InvalidState, "image %q is %s: only a ready image makes VMs", i.Name, i.State)
	}
	return i, pgtx.Map(err)
}

// ImageSumNodes gives a few nodes, besides one, whose VMs stand on a file.
func (s *Store) ImageSumNodes(ctx context.Context, sum string, besides id.ID) ([]id.ID, error) {
	nodes, err := s.q.ImageSumNodes(ctx, query.ImageSumNodesParams{Sha256: sum, Besides: besides})
	return nodes, pgtx.Map(err)
}

// ImageSums lists the content of all images.
func (s *Store) ImageSums(ctx context.Context) (map[string]bool, error) {
	sums, err := s.q.ImageSums(ctx)
	out := make(map[string]bool, len(sums))
	for _, sum := range sums {
		out[sum] = true
	}
	return out, pgtx.Map(err)
}

// ImageSumLock keeps other transactions from keeping or removing the content of
// this hash until this one ends.
func (t *Tx) ImageSumLock(ctx context.Context, sum string) error {
	return pgtx.Map(t.q.ImageSumLock(ctx, sum))
}

// ImageSumShared tells, under ImageSumLock, whether another image has the same
// content.
func (t *Tx) ImageSumShared(ctx context.Context, sum string, i id.ID) (bool, error) {
	used, err := t.q.ImageSumUsed(ctx, query.ImageSumUsedParams{Sha256: sum, ImageID: i})
	return used, pgtx.Map(err)
}

// ImageSumShared tells whether another image has the same content.
func (s *Store) ImageSumShared(ctx context.Context, sum string, i id.ID) (bool, error) {
	used, err := s.q.ImageSumUsed(ctx, query.ImageSumUsedParams{Sha256: sum, ImageID: i})
	return used, pgtx.Map(err)
}
