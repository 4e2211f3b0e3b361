package server

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
)

// The answer to a start is the job as it was recorded: what is read later differs by
// what has happened since.
func TestAnswerIsTheRecord(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	r.nodes(1)
	r.image("tiny")
	if v, status := call[api.Accepted](r, "POST", "/api/v1/vms?wait=20s", newVM("web")); status != http.StatusAccepted || v.Job.State != "succeeded" {
		t.Fatalf("create: %d %+v", status, v)
	}
	if v, status := call[api.Accepted](r, "POST", "/api/v1/vms/web/stop?wait=20s", api.VMStop{Force: true}); status != http.StatusAccepted || v.Job.State != "succeeded" {
		t.Fatalf("stop: %d %+v", status, v)
	}
	said, status := call[api.Accepted](r, "POST", "/api/v1/vms/web/start", nil)
	if status != http.StatusAccepted || said.Job.State != "running" || len(said.Job.Steps) < 2 {
		t.Fatalf("start: %d %+v", status, said)
	}
	recorded, status := call[api.Job](r, "GET", "/api/v1/jobs/"+said.Job.ID, nil)
	if status != http.StatusOK {
		t.Fatalf("read: %d", status)
	}
	// what time changes
	last := len(said.Job.Steps) - 1
	said.Job.State, said.Job.Progress, said.Job.Cancellable = recorded.State, recorded.Progress, recorded.Cancellable
	said.Job.Revision, said.Job.FinishedAt = recorded.Revision, recorded.FinishedAt
	said.Job.Steps[last].State, said.Job.Steps[last].FinishedAt = recorded.Steps[last].State, recorded.Steps[last].FinishedAt
	if diff := cmp.Diff(recorded, said.Job); diff != "" {
		t.Errorf("answered and recorded (-recorded +answered):\n%s", diff)
	}
}
