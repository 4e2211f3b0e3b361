package store

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// incarnation is what a report is about.
type incarnation struct {
	vm    id.ID
	epoch gen.OwnerEpoch
}

// ReportsApply takes the reports of one node and tells what became of each, in
// their order. Of several about one incarnation only the newest is written; the
// others are stale.
func (s *Store) ReportsApply(ctx context.Context, node id.ID, epoch gen.NodeEpoch, items []nodelink.Report) ([]nodelink.Result, error) {
	if len(items) == 0 {
		return nil, nil
	}
	p, place := reportsParams(node, epoch, items)
	return s.reportsApply(ctx, p, place, len(items))
}

// ReportApply is ReportsApply of one report that answers a job's command. It does
// not wait for the disk: the job's next entry does, and without that the command is
// sent again and answered the same.
func (s *Store) ReportApply(ctx context.Context, node id.ID, epoch gen.NodeEpoch, item nodelink.Report) (nodelink.Result, error) {
	p, place := reportsParams(node, epoch, []nodelink.Report{item})
	p.Relaxed = true
	out, err := s.reportsApply(ctx, p, place, 1)
	if err != nil {
		return "", err
	}
	return out[0], nil
}

func (s *Store) reportsApply(ctx context.Context, p query.ReportsApplyParams, place map[incarnation]int, items int) ([]nodelink.Result, error) {
	var rows []query.ReportsApplyRow
	err := pgtx.Again(func() (err error) {
		for range len(p.VmIds) + 1 {
			rows, err = s.q.ReportsApply(ctx, p)
			if !pgtx.Violates(err, "instances_vm_id_fkey") {
				break
			}
			// a VM was deleted between the look and the write; it is not seen again
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]nodelink.Result, items)
	for i := range out {
		out[i] = nodelink.Stale
	}
	for _, r := range rows {
		out[place[incarnation{r.VmID, gen.OwnerEpoch(r.OwnerEpoch)}]] = nodelink.Result(r.Result)
	}
	return out, nil
}

// reportsParams turns reports into columns, one row per incarnation.
func reportsParams(node id.ID, epoch gen.NodeEpoch, items []nodelink.Report) (query.ReportsApplyParams, map[incarnation]int) {
	place := make(map[incarnation]int, len(items))
	for i, r := range items {
		at, twice := place[incarnation{r.VM, r.Epoch}]
		if !twice || items[at].Seq < r.Seq {
			place[incarnation{r.VM, r.Epoch}] = i
		}
	}
	p := query.ReportsApplyParams{NodeID: &node, NodeEpoch: int64(epoch)}
	for i, r := range items {
		if place[incarnation{r.VM, r.Epoch}] != i {
			continue
		}
		p.VmIds = append(p.VmIds, r.VM)
		p.Epochs = append(p.Epochs, int64(r.Epoch))
		p.Seqs = append(p.Seqs, int64(r.Seq))
		p.Phases = append(p.Phases, string(r.Phase))
		p.Reasons = append(p.Reasons, r.Reason)
		p.Sinces = append(p.Sinces, orEpoch(r.Since))
	}
	return p, place
}

// orEpoch keeps a missing time from reaching the database as the year 1.
func orEpoch(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(0, 0)
	}
	return t
}
