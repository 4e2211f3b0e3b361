package control

import (
	"context"
	"strings"

	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// FetchImage has a server read a file of an image from a URL. sum, unless empty, is
// the SHA-256 that the file must have. The URL may have a secret in its query, so
// the audit log has it without that.
func (s *Service) FetchImage(ctx context.Context, c Caller, ref string, p flows.FetchParams) (Accepted, error) {
	if err := image.ValidateFetch(p.Role, p.SHA256); err != nil {
		return Accepted{}, err
	}
	if err := s.cfg.Fetch.Check(ctx, p.URL); err != nil {
		return Accepted{}, errs.As(err).At(errs.Field{Pointer: "/url", Message: "may not be read"})
	}
	return s.once(ctx, c, func(tx *store.Tx) (Accepted, error) {
		i, err := tx.ImageGet(ctx, s.cfg.Project, ref)
		if err != nil {
			return Accepted{}, err
		}
		if err := i.Awaits(p.Role); err != nil {
			return Accepted{}, err
		}
		job := id.New()
		if _, err := s.enqueue(ctx, tx, c, workflow.NewJob{
			ID: job, Kind: flows.JobImageFetch, ProjectID: &i.ProjectID, Params: p, Cancellable: true,
			Target: workflow.Target{Kind: "image", ID: i.ID, Name: i.Name},
		}); err != nil {
			return Accepted{}, err
		}
		if err := tx.ImageSetState(ctx, i, image.Uploading, &job); err != nil {
			return Accepted{}, err
		}
		r := c.record("image.fetch", "image", i.ID, i.Name)
		r.JobID, r.ProjectID, r.Detail = &job, &i.ProjectID, map[string]any{"role": string(p.Role), "url": withoutQuery(p.URL), "sha256": p.SHA256}
		return Accepted{Job: &job, Object: i.ID}, tx.AuditInsert(ctx, r)
	})
}

func withoutQuery(url string) string {
	url, _, _ = strings.Cut(url, "?")
	return url
}
