package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/novacron/novacron/api"
)

// ApplyOptions say how documents are applied.
type ApplyOptions struct {
	// DryRun changes nothing and tells what would be changed.
	DryRun bool
	// Prune removes the disks of VMs that their documents do not declare, and what
	// is on them.
	Prune bool
}

// Apply brings objects to what documents declare of them: api.VMDocument,
// api.ImageDocument, api.NodeDocument or their JSON. All are judged before the
// first change; when one is refused, nothing is changed, and its result says why.
func (c *Client) Apply(ctx context.Context, o ApplyOptions, documents ...any) (api.Applied, error) {
	var out api.Applied
	req := api.Apply{Documents: make([]json.RawMessage, 0, len(documents))}
	for _, d := range documents {
		b, err := json.Marshal(d)
		if err != nil {
			return out, fail(CodeInvalidConfig, "a document cannot be written as JSON", err)
		}
		req.Documents = append(req.Documents, b)
	}
	body, err := json.Marshal(req)
	if err != nil {
		return out, fail(CodeInvalidConfig, "the request cannot be written as JSON", err)
	}
	q := url.Values{}
	if o.DryRun {
		q.Set("dry_run", "true")
	}
	if o.Prune {
		q.Set("prune", "true")
	}
	err = c.do(ctx, request{method: http.MethodPost, path: "/apply", query: q, body: body, safe: o.DryRun}, &out)
	return out, err
}
