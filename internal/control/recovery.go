package control

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/domain/audit"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/recovery"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// holdingsTimeout bounds what one node may take to tell what it holds.
const holdingsTimeout = 5 * time.Second

// mostHoldings of one node are taken.
const mostHoldings = 100_000

// holdings asks a node what it holds.
func (s *Service) holdings(ctx context.Context, n recovery.Node) (recovery.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, holdingsTimeout)
	defer cancel()
	n.Volumes, n.Pools, n.Holdings = map[id.ID]int64{}, map[id.ID]id.ID{}, nil
	cmd := &nodelink.ListHoldings{Limit: 200}
	for {
		var reply nodelink.HoldingsReply
		if err := s.cfg.Nodes.Call(ctx, n.ID, cmd, &reply); err != nil {
			return n, err
		}
		for _, v := range reply.Volumes {
			n.Volumes[v.ID] = v.SizeBytes
			if v.Pool != id.Nil {
				n.Pools[v.ID] = v.Pool
			}
		}
		for _, h := range reply.Items {
			n.Holdings = append(n.Holdings, holding(n, h))
			cmd.After = h.VM
		}
		if !reply.More || len(reply.Items) == 0 {
			n.Answered = true
			return n, nil
		}
		if len(n.Holdings) > mostHoldings {
			return n, errs.New(errs.OutOfRange, "node %s tells of more than %d VMs", n.Name, mostHoldings)
		}
	}
}

func holding(n recovery.Node, w nodelink.Holding) recovery.Holding {
	h := recovery.Holding{
		VM: w.VM, Epoch: w.OwnerEpoch, Operation: w.Operation, OpSeq: w.OpSeq, Attempt: w.Attempt, PowerOn: w.PowerOn, Erased: w.Erased,
		Bases: map[id.ID]image.File{}, Volumes: w.Volumes, RecordedAt: w.RecordedAt,
	}
	for v, f := range w.Bases {
		h.Bases[v] = imageFile(f)
	}
	if w.Machine != nil {
		h.Machine = machine(*w.Machine)
	}
	if r := w.Report; r != nil && r.Phase.Valid() && r.Epoch <= w.OwnerEpoch {
		h.Observed = &vm.Observation{
			Epoch: r.Epoch, NodeID: n.ID, NodeEpoch: n.Epoch, Seq: r.Seq, Phase: r.Phase, Reason: nodelink.Text(r.Reason), Since: r.Since,
		}
	}
	return h
}

func machine(m nodelink.Machine) *recovery.Machine {
	out := &recovery.Machine{
		Name: nodelink.Text(m.Name), CPUs: m.CPUs, MemoryBytes: m.MemoryBytes, Hardware: hardware(m), Cmdline: nodelink.Text(m.Cmdline), Volumes: m.Volumes, Seed: m.Seed,
	}
	for from, to := range map[*nodelink.ImageFile]**image.File{m.Kernel: &out.Kernel, m.Initrd: &out.Initrd, m.CD: &out.CD, m.Medium: &out.Medium} {
		if from != nil {
			f := imageFile(*from)
			*to = &f
		}
	}
	for _, c := range m.NICs {
		nic := vm.NIC{ID: c.ID, MAC: c.MAC}
		for _, f := range c.Forwards {
			nic.Forwards = append(nic.Forwards, vm.Forward(f))
		}
		out.NICs = append(out.NICs, nic)
	}
	return out
}

// hardware leaves out what cannot be true.
func hardware(m nodelink.Machine) (h vm.Hardware) {
	if vm.ValidBoard(m.Type) {
		h.Type = m.Type
	}
	if vm.ValidCPU(m.CPU) {
		h.CPU = m.CPU
	}
	if vm.ValidFirmware(m.Firmware) {
		h.Firmware = m.Firmware
	}
	return h
}

func imageFile(f nodelink.ImageFile) image.File {
	return image.File{SHA256: f.SHA256, SizeBytes: f.SizeBytes, Format: f.Format, VirtualBytes: f.VirtualBytes}
}

// Look compares a node that has come, or told of something odd, with the
// database, and holds it if it knows more. It looks twice before it believes that:
// a VM may be deleted while it looks.
func (s *Service) Look(ctx context.Context, which id.ID) error {
	for look := range 2 {
		if s.holds.Held(which) {
			return nil // compared when somebody asks
		}
		n, err := s.cfg.Store.NodeGet(ctx, which.String())
		if err != nil {
			return err
		}
		why, err := s.evidence(ctx, n)
		if err != nil || why == "" {
			return err
		}
		if look == 1 {
			return s.holdNode(ctx, n, why)
		}
	}
	return nil
}

func (s *Service) evidence(ctx context.Context, n node.Node) (string, error) {
	held, err := s.holdings(ctx, recovery.Node{ID: n.ID, Name: n.Name, Epoch: n.Epoch})
	if errs.Is(err, errs.Unsupported) {
		return "", nil // an older agent, whose reports tell
	}
	if err != nil {
		return "", err
	}
	ids := make([]id.ID, 0, len(held.Holdings))
	for _, h := range held.Holdings {
		ids = append(ids, h.VM)
	}
	// after the node has told: what the database knows grows first
	vms, err := s.cfg.Store.VMFences(ctx, ids)
	if err != nil {
		return "", err
	}
	left, err := s.left(ctx)
	if err != nil {
		return "", err
	}
	// after the node has told, too: a copy is on record before it is made, and until it
	// is gone
	copies, err := s.cfg.Store.MigrationsOf(ctx, n.ID)
	for _, v := range copies {
		if in, known := vms[v]; !known || in.NodeID == nil || *in.NodeID != n.ID {
			left[recovery.Left{VM: v, Node: n.ID}] = true
		}
	}
	return recovery.Evidence(held, vms, left), err
}

func (s *Service) left(ctx context.Context) (map[recovery.Left]bool, error) {
	rows, err := s.cfg.Store.RecoveryLeft(ctx)
	out := make(map[recovery.Left]bool, len(rows))
	for _, l := range rows {
		out[recovery.Left{VM: l.VM, Node: l.Node}] = true
	}
	return out, err
}

// compareReports holds a node whose reports are ahead of the database, and has
// one looked at that tells of VMs the database does not place there.
func (s *Service) compareReports(ctx context.Context, which id.ID, items []nodelink.Report, results []nodelink.Result) error {
	odd := false
	for i, r := range results {
		switch {
		case r == nodelink.Ahead && !s.holds.Held(which):
			n, err := s.cfg.Store.NodeGet(ctx, which.String())
			if err != nil {
				return err
			}
			return s.holdNode(ctx, n, fmt.Sprintf("it reports VM %s under owner epoch %d, which the database has not reached", items[i].VM, items[i].Epoch))
		case r == nodelink.NotPlaced && items[i].Phase.OnNode():
			odd = true
		}
	}
	if odd && s.cfg.Suspect != nil && !s.holds.Held(which) {
		s.cfg.Suspect(which)
	}
	return nil
}

// holdNode holds a node, and the whole cluster when so many are ahead that it must
// be the database that is behind.
func (s *Service) holdNode(ctx context.Context, n node.Node, why string) error {
	err := s.change(ctx, func(tx *store.Tx) error {
		fresh, err := tx.RecoveryHoldNode(ctx, n.ID, store.CauseAhead, why)
		if err != nil || !fresh {
			return err
		}
		s.cfg.Log.Error("a node knows more than the database: it is held until an operator confirms the difference", "node", n.Name, "why", why)
		if err := s.recordHold(ctx, tx, "node "+n.Name, "node", n.ID, n.Name, map[string]any{"reason": why}); err != nil {
			return err
		}
		ahead, all, err := tx.RecoveryShare(ctx)
		if err != nil || !recovery.Behind(ahead, all) {
			return err
		}
		reason := fmt.Sprintf("%d of %d nodes know more than the database: it is an older one", ahead, all)
		if fresh, err = tx.RecoveryHoldAll(ctx, store.CauseNodes, reason); err != nil || !fresh {
			return err
		}
		return s.recordHold(ctx, tx, "nodes", "cluster", s.cfg.Cluster.ID, "", map[string]any{"reason": reason})
	})
	if err != nil {
		return err
	}
	return s.holds.Refresh(ctx)
}

func (s *Service) recordHold(ctx context.Context, tx *store.Tx, by, kind string, object id.ID, name string, detail map[string]any) error {
	err := tx.AuditInsert(ctx, audit.Record{
		Principal: by, Role: "node", Origin: "session", Action: "recovery.hold", ObjectKind: kind, ObjectID: &object, ObjectName: name,
		Outcome: audit.Accepted, Detail: detail,
	})
	if err != nil {
		return err
	}
	return tx.RecoveryChanged(ctx, s.cfg.Cluster.ID, map[string]any{"held": true, "reason": detail["reason"]})
}

// takeBack records a node that joined after the backup was made from which the
// database was restored: its certificate proves that it did. It takes no new VMs
// until somebody looked at it.
func (s *Service) takeBack(ctx context.Context, h nodelink.Hello, keyHash []byte) error {
	if s.holds.Now().Cause != store.CauseRestored {
		return nil
	}
	_, err := s.cfg.Store.NodeEpoch(ctx, h.Node)
	if !errs.Is(err, errs.NotFound) {
		return err
	}
	name := h.Name
	if id.CheckName("/name", name) != nil {
		name = "node-" + id.Short(h.Node)
	}
	n := node.Node{ID: h.Node, Name: name, Simulated: h.Inventory.Simulated, KeyHash: keyHash}
	return s.change(ctx, func(tx *store.Tx) error {
		ok, err := tx.NodeRecreate(ctx, n)
		if err == nil && !ok {
			n.Name = "node-" + id.Short(h.Node)
			ok, err = tx.NodeRecreate(ctx, n)
		}
		if err != nil || !ok {
			return err
		}
		return s.recordHold(ctx, tx, "node "+n.Name, "node", n.ID, n.Name, map[string]any{"reason": "it joined after the backup was made"})
	})
}

// snapshot reads everything that is compared. Nodes first: what the database
// knows grows first.
func (s *Service) snapshot(ctx context.Context, r store.Recovery) (recovery.Snapshot, error) {
	var snap recovery.Snapshot
	nodes, err := s.heldNodes(ctx, r)
	if err != nil {
		return snap, err
	}
	snap.Whole, snap.Nodes = r.Cause != "", s.askAll(ctx, nodes)
	page := store.Page{Limit: 500}
	for {
		views, next, err := s.cfg.Store.VMList(ctx, s.cfg.Project, page)
		if err != nil {
			return snap, err
		}
		snap.VMs = append(snap.VMs, views...)
		if next == nil {
			break
		}
		page.AfterKey, page.AfterID = next.Key, &next.ID
	}
	page = store.Page{Limit: 500}
	for {
		images, next, err := s.cfg.Store.ImageList(ctx, s.cfg.Project, page)
		if err != nil {
			return snap, err
		}
		snap.Images = append(snap.Images, images...)
		if next == nil {
			break
		}
		page.AfterKey, page.AfterID = next.Key, &next.ID
	}
	if snap.Jobs, err = s.cfg.Store.JobsOpen(ctx); err != nil {
		return snap, err
	}
	if snap.MACs, err = s.cfg.Store.MACs(ctx); err != nil {
		return snap, err
	}
	snap.Left, err = s.left(ctx)
	return snap, err
}

// heldNodes are those that are compared.
func (s *Service) heldNodes(ctx context.Context, r store.Recovery) ([]recovery.Node, error) {
	var out []recovery.Node
	held := map[id.ID]bool{}
	for _, n := range r.Nodes {
		held[n.ID] = true
	}
	page := store.Page{Limit: 500}
	for {
		nodes, next, err := s.cfg.Store.NodeList(ctx, page)
		if err != nil {
			return nil, err
		}
		for _, n := range nodes {
			if r.Cause != "" || held[n.ID] {
				out = append(out, recovery.Node{ID: n.ID, Name: n.Name, Epoch: n.Epoch})
			}
		}
		if next == nil {
			return out, nil
		}
		page.AfterKey, page.AfterID = next.Key, &next.ID
	}
}

// askAll asks many nodes at once. One that does not answer stays as it is.
func (s *Service) askAll(ctx context.Context, nodes []recovery.Node) []recovery.Node {
	out := make([]recovery.Node, len(nodes))
	turn := make(chan struct{}, 32)
	var wg sync.WaitGroup
	for i, n := range nodes {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			answered, err := s.holdings(ctx, n)
			if err != nil {
				s.cfg.Log.Warn("a held node does not tell what it holds", "node", n.Name, "err", err)
				answered = n
			}
			out[i] = answered
		})
	}
	wg.Wait()
	return out
}
