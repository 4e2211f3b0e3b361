package store

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/pgtx"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store/query"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// ReportsApply takes the reports of one node and tells what became of each, in
// their order. Of several about one incarnation only the newest is written; the
// others are stale.
func (s *Store) ReportsApply(ctx context.Context, node id.ID, epoch gen.NodeEpoch, items []nodelink.Report) ([]nodelink.Result, error) {
	if len(items) == 0 {
		return nil, nil
	}
	return s.submit(ctx, &delivery{node: node, epoch: epoch, items: items})
}

// ReportApply is ReportsApply of one report that answers a job's command. It does
// not wait for the disk: the job's next entry does, and without that the command is
// sent again and answered the same.
func (s *Store) ReportApply(ctx context.Context, node id.ID, epoch gen.NodeEpoch, item nodelink.Report) (nodelink.Result, error) {
	out, err := s.submit(ctx, &delivery{node: node, epoch: epoch, items: []nodelink.Report{item}, relaxed: true})
	if err != nil {
		return "", err
	}
	return out[0], nil
}

// reports are the deliveries that wait for the one statement that is under way:
// all of them share the next. Nobody waits for company.
type reports struct {
	mu    sync.Mutex
	queue []*delivery
	busy  bool
}

// delivery is what one node brought at once.
type delivery struct {
	node    id.ID
	epoch   gen.NodeEpoch
	items   []nodelink.Report
	relaxed bool

	done    chan struct{}
	results []nodelink.Result
	err     error
}

const (
	// mostReports bounds one statement.
	mostReports = 500
	// reportsTimeout bounds one statement in time: it is not the context's of any one
	// of those who share it.
	reportsTimeout = 15 * time.Second
)

func (s *Store) submit(ctx context.Context, d *delivery) ([]nodelink.Result, error) {
	d.done = make(chan struct{})
	r := &s.reports
	r.mu.Lock()
	r.queue = append(r.queue, d)
	lead := !r.busy
	r.busy = true
	r.mu.Unlock()
	if lead {
		go s.deliver(context.WithoutCancel(ctx))
	}
	select {
	case <-d.done:
		return d.results, d.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// deliver writes until nothing waits.
func (s *Store) deliver(ctx context.Context) {
	for {
		batch := s.reports.take()
		if len(batch) == 0 {
			return
		}
		err := s.write(ctx, batch)
		for _, d := range batch {
			// one that the database does not take must not hold up the others
			if err != nil && len(batch) > 1 && !errs.Is(err, errs.DBUnavailable) {
				d.err = s.write(ctx, []*delivery{d})
			} else {
				d.err = err
			}
			close(d.done)
		}
	}
}

// take gives the next deliveries; none, and nobody is busy any more.
func (r *reports) take() []*delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, sum := 0, 0
	for n < len(r.queue) && (n == 0 || sum+len(r.queue[n].items) <= mostReports) {
		sum += len(r.queue[n].items)
		n++
	}
	batch := r.queue[:n:n]
	r.queue = r.queue[n:]
	r.busy = n > 0
	return batch
}

func (s *Store) write(ctx context.Context, batch []*delivery) error {
	ctx, cancel := context.WithTimeout(ctx, reportsTimeout)
	defer cancel()
	p, place := reportsParams(batch)
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
		return err
	}
	for _, d := range batch {
		d.results = make([]nodelink.Result, len(d.items))
		for i := range d.results {
			d.results[i] = nodelink.Stale
		}
	}
	for _, r := range rows {
		*place[incarnation{r.NodeID, r.VmID, gen.OwnerEpoch(r.OwnerEpoch)}].result() = nodelink.Result(r.Result)
	}
	return nil
}

// incarnation is what a report is about, and who says so.
type incarnation struct {
	node, vm id.ID
	epoch    gen.OwnerEpoch
}

// line is one report of a delivery.
type line struct {
	d *delivery
	i int
}

func (l line) report() nodelink.Report  { return l.d.items[l.i] }
func (l line) result() *nodelink.Result { return &l.d.results[l.i] }

// reportsParams turns reports into columns, one row per incarnation: the newest.
func reportsParams(batch []*delivery) (query.ReportsApplyParams, map[incarnation]line) {
	place, order := map[incarnation]line{}, []incarnation{}
	p := query.ReportsApplyParams{Relaxed: true}
	for _, d := range batch {
		p.Relaxed = p.Relaxed && d.relaxed
		for i, r := range d.items {
			of := incarnation{d.node, r.VM, r.Epoch}
			at, twice := place[of]
			if !twice {
				order = append(order, of)
			}
			if !twice || at.report().Seq < r.Seq {
				place[of] = line{d, i}
			}
		}
	}
	for _, of := range order {
		l := place[of]
		r := l.report()
		p.NodeIds = append(p.NodeIds, of.node)
		p.NodeEpochs = append(p.NodeEpochs, int64(l.d.epoch))
		p.VmIds = append(p.VmIds, r.VM)
		p.Epochs = append(p.Epochs, int64(r.Epoch))
		p.Seqs = append(p.Seqs, int64(r.Seq))
		p.Phases = append(p.Phases, string(r.Phase))
		p.Reasons = append(p.Reasons, r.Reason)
		p.Sinces = append(p.Sinces, orEpoch(r.Since))
		addresses, frozen := r.Kept()
		if frozen == nil {
			frozen = &vm.Frozen{}
		}
		p.Addresses = append(p.Addresses, arrayText(addresses))
		p.FrozenUntils = append(p.FrozenUntils, orEpoch(frozen.Until))
		p.FrozenWhys = append(p.FrozenWhys, frozen.Reason)
	}
	return p, place
}

// arrayText is an array of PostgreSQL's, as text; no address holds what means something
// in one.
func arrayText(all []netip.Addr) string {
	texts := make([]string, len(all))
	for i, a := range all {
		texts[i] = a.String()
	}
	return "{" + strings.Join(texts, ",") + "}"
}

// orEpoch keeps a missing time from reaching the database as the year 1.
func orEpoch(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(0, 0)
	}
	return t
}
