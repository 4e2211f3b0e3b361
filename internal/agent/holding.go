package agent

import (
	"bytes"
	"context"
	"os"
	"slices"

	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// following is the incarnation of the cluster whose commands are obeyed.
func (a *Agent) following() id.ID {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cluster
}

// follow takes up the incarnation of the cluster that a server is of, if that is
// the node's own or says that it follows on the node's own. From then on no server
// of an earlier one is obeyed: it works on an older copy of the database.
func (a *Agent) follow(w nodelink.Welcome) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w.Cluster == a.cluster {
		return nil
	}
	if !slices.Contains(w.Follows, a.cluster) {
		return errs.New(errs.Conflict, "the server belongs to another cluster than this node joined, or works on an older copy of its database")
	}
	if a.cfg.Follow != nil {
		if err := a.cfg.Follow(w.Cluster); err != nil {
			return err
		}
	}
	a.log.Info("the cluster's database was restored from a backup; this node follows", "incarnation", w.Cluster)
	a.cluster = w.Cluster
	return nil
}

// mostHoldings bounds one page.
const mostHoldings = 500

// listHoldings tells what the node holds, by its own records and its host.
func (a *Agent) listHoldings(ctx context.Context, _ Peer, c *nodelink.ListHoldings) (any, error) {
	var out nodelink.HoldingsReply
	if c.After == id.Nil {
		vols, err := a.cfg.Volumes.List(ctx)
		if err != nil {
			return nil, err
		}
		for _, v := range vols {
			out.Volumes = append(out.Volumes, nodelink.HeldVolume{ID: v.ID, SizeBytes: v.SizeBytes})
		}
	}
	a.mu.Lock()
	guests := make([]record, 0, len(a.guests))
	for _, g := range a.guests {
		guests = append(guests, g.snapshot())
	}
	a.mu.Unlock()
	if c.After == id.Nil {
		for _, rec := range guests {
			out.Volumes = append(out.Volumes, a.heldInPools(ctx, rec)...)
		}
	}
	slices.SortFunc(guests, func(x, y record) int { return bytes.Compare(x.VM[:], y.VM[:]) })
	limit := min(max(c.Limit, 1), mostHoldings)
	for _, rec := range guests {
		if bytes.Compare(rec.VM[:], c.After[:]) <= 0 {
			continue
		}
		if out.More = len(out.Items) == limit; out.More {
			break
		}
		out.Items = append(out.Items, a.holding(rec))
	}
	return out, nil
}

// heldInPools tells of a VM's volumes that are in storage pools. Of one whose pool cannot be
// used now, nobody may believe that it is gone: it has no size.
func (a *Agent) heldInPools(ctx context.Context, rec record) (out []nodelink.HeldVolume) {
	if rec.Erased {
		return nil
	}
	for _, v := range rec.claimed() {
		h := nodelink.HeldVolume{ID: v, Pool: rec.Pools[v]}
		d, err := a.keeps(rec, v)
		if err == nil {
			var vol volume.Volume
			vol, err = d.Inspect(ctx, v)
			h.SizeBytes = vol.SizeBytes
		}
		if !errs.Is(err, errs.NotFound) {
			out = append(out, h)
		}
	}
	return out
}

func (a *Agent) holding(rec record) nodelink.Holding {
	h := nodelink.Holding{
		VM: rec.VM, OwnerEpoch: rec.Epoch, Operation: rec.Operation, OpSeq: rec.OpSeq, Attempt: rec.Attempt,
		PowerOn: rec.PowerOn, Erased: rec.Erased, Machine: rec.Machine, Bases: rec.Bases, Volumes: rec.Volumes,
		Report: a.reports.newest(rec.VM),
	}
	if info, err := os.Stat(a.records.path(rec.VM)); err == nil {
		h.RecordedAt = info.ModTime()
	}
	return h
}
