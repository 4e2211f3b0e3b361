package control

import (
	"context"
	"strings"
	"time"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// JoinTokenLife is how long a join token is good.
const JoinTokenLife = 15 * time.Minute

// Nodes gives a page of nodes.
func (s *Service) Nodes(ctx context.Context, p store.Page) ([]node.Node, *store.Next, error) {
	nodes, next, err := s.cfg.Store.NodeList(ctx, p)
	for i := range nodes {
		s.judgeNode(&nodes[i])
	}
	return nodes, next, err
}

// Node gives one node.
func (s *Service) Node(ctx context.Context, ref string) (node.Node, error) {
	n, err := s.cfg.Store.NodeGet(ctx, ref)
	if err == nil {
		s.judgeNode(&n)
	}
	return n, err
}

// judgeNode adds what this server knows of a node besides its row.
func (s *Service) judgeNode(n *node.Node) {
	n.Reporting, n.Held = s.cfg.Live.Reporting(n.ID), s.holds.Held(n.ID)
	n.Misbehaved = s.holds.Now().WhatDid(n.ID)
}

// JoinToken makes a single-use token with which one host may join.
func (s *Service) JoinToken(ctx context.Context, c Caller) (string, time.Time, error) {
	secret, hash := pki.NewSecret(pki.PrefixJoin)
	servers, err := s.cfg.Store.ServerAddresses(ctx)
	if err != nil {
		return "", time.Time{}, err
	}
	k := store.Token{ID: id.New(), Kind: store.TokenJoin, Name: "join", Hash: hash, CreatedBy: c.Name, Life: JoinTokenLife}
	err = s.change(ctx, func(tx *store.Tx) error {
		if err := tx.TokenInsert(ctx, k); err != nil {
			return err
		}
		return tx.AuditInsert(ctx, c.record("node.token", "token", k.ID, k.Name))
	})
	pin := s.cfg.CA.Pin()
	t := pki.JoinToken{Secret: secret, Pin: pin[:], Servers: servers}
	return t.String(), s.cfg.Clock.Now().Add(JoinTokenLife), err
}

// Join takes in a node: the token is spent, the name taken and the certificate
// signed in one transaction. origin is the peer's address, for the record.
func (s *Service) Join(ctx context.Context, r nodelink.JoinRequest, origin string) (nodelink.JoinReply, error) {
	if err := id.CheckName("/name", r.Name); err != nil {
		return nodelink.JoinReply{}, err
	}
	token, err := s.cfg.Store.TokenUsable(ctx, store.TokenJoin, pki.HashSecret(r.Token))
	if err != nil {
		return nodelink.JoinReply{}, err
	}
	n := node.Node{ID: id.New(), Name: r.Name, Simulated: r.Simulated}
	certPEM, keyHash, err := s.cfg.CA.Node(n.ID, []byte(r.CSRPEM), s.cfg.Clock.Now())
	if err != nil {
		return nodelink.JoinReply{}, err
	}
	n.KeyHash, n.CertificateExpiresAt = keyHash, s.cfg.Clock.Now().Add(pki.NodeLife)
	// before the token is spent: after it, nothing may fail any more
	servers, err := s.cfg.Store.ServerAddresses(ctx)
	if err != nil {
		return nodelink.JoinReply{}, err
	}
	who := Caller{}
	who.Name, who.Role, who.Origin = "join token "+token.ID.String(), "node", origin
	err = s.change(ctx, func(tx *store.Tx) error {
		if err := tx.TokenSpend(ctx, token.ID); err != nil {
			return err
		}
		if err := tx.NodeInsert(ctx, n); err != nil {
			return err
		}
		return tx.AuditInsert(ctx, who.record("node.join", "node", n.ID, n.Name))
	})
	if err != nil {
		return nodelink.JoinReply{}, err
	}
	return nodelink.JoinReply{
		Node: n.ID, Cluster: s.cfg.Cluster.Incarnation, CertPEM: string(certPEM), CAPEM: s.cfg.Cluster.CACertPEM, Servers: servers,
	}, nil
}

// Hello takes what an agent says of itself at the start of a session.
func (s *Service) Hello(ctx context.Context, h nodelink.Hello, keyHash []byte) (nodelink.Welcome, error) {
	if h.Protocol > nodelink.Protocol {
		return nodelink.Welcome{}, errs.New(errs.Unsupported, "the agent speaks version %d of the node link, this server %d: upgrade the servers first", h.Protocol, nodelink.Protocol)
	}
	if h.Protocol < nodelink.Protocol-1 {
		return nodelink.Welcome{}, errs.New(errs.Unsupported, "the agent speaks version %d of the node link, this server %d and the one before: upgrade this node's agent", h.Protocol, nodelink.Protocol)
	}
	inv := inventory(h.Inventory)
	n := node.Node{
		ID: h.Node, Epoch: h.NodeEpoch, AgentVersion: nodelink.Text(h.AgentVersion), Inventory: inv, Capacity: node.Schedulable(inv),
	}
	follows, err := s.follows(ctx, h)
	if err != nil {
		return nodelink.Welcome{}, err
	}
	if err := s.takeBack(ctx, h, keyHash); err != nil {
		return nodelink.Welcome{}, err
	}
	err = s.change(ctx, func(tx *store.Tx) error {
		if err := tx.NodeSpokenWith(ctx, n.ID); err != nil {
			return err
		}
		if err := tx.NodeHello(ctx, n, keyHash); err != nil {
			return err
		}
		if err := tx.NodePlanHas(ctx, n.ID, nodelink.Text(h.Plan)); err != nil {
			return err
		}
		if err := tx.NodePools(ctx, n.ID, poolsOf(h.Pools)); err != nil {
			return err
		}
		return wakeHeld(ctx, tx, h.Node)
	})
	if err != nil {
		return nodelink.Welcome{}, err
	}
	// a hello is a renewal: nobody has to wait for the first heartbeat
	s.cfg.Live.Heard(h.Node, int64(h.NodeEpoch)<<32)
	s.roomMade()
	servers, err := s.cfg.Store.ServerAddresses(ctx)
	return nodelink.Welcome{Cluster: s.cfg.Cluster.Incarnation, Follows: follows, Servers: servers, LeaseMS: LeaseTTL.Milliseconds()}, err
}

// roomMade lets VMs that fit nowhere look again.
func (s *Service) roomMade() {
	if s.cfg.RoomMade != nil {
		s.cfg.RoomMade()
	}
}

// wakeHeld lets jobs go on that wait for this node to be reached.
func wakeHeld(ctx context.Context, tx *store.Tx, node id.ID) error {
	held, err := tx.VMsHeldOn(ctx, node)
	if err != nil || len(held) == 0 {
		return err
	}
	_, err = workflow.Wake(ctx, tx, workflow.Filter{TargetKind: "vm", Targets: held})
	return err
}

// Beat takes a lease renewal.
func (s *Service) Beat(node id.ID, b nodelink.Heartbeat) nodelink.HeartbeatReply {
	s.cfg.Live.Heard(node, b.Seq)
	return nodelink.HeartbeatReply{Servers: s.cfg.Live.Servers()}
}

// Reports takes observations of one node.
func (s *Service) Reports(ctx context.Context, node id.ID, epoch gen.NodeEpoch, items []nodelink.Report) (nodelink.ReportsReply, error) {
	for i, r := range items {
		if !r.Phase.Valid() {
			return nodelink.ReportsReply{}, errs.New(errs.InvalidField, "%q is not a phase", errs.Clip(string(r.Phase)))
		}
		// a reason may quote what a guest's process wrote: one that the database does
		// not take would hold up every later report of the node
		items[i].Reason = nodelink.Text(r.Reason)
	}
	results, err := s.cfg.Store.ReportsApply(ctx, node, epoch, items)
	if err != nil {
		return nodelink.ReportsReply{}, err
	}
	s.cfg.Recorded() // no job waits for what is reported: those that look at it come back by themselves
	return nodelink.ReportsReply{Results: results}, s.compareReports(ctx, node, items, results)
}

// SetNode cordons, uncordons or removes a node.
func (s *Service) SetNode(ctx context.Context, c Caller, ref string, to node.State, revision *int64) (node.Node, error) {
	var n node.Node
	err := s.change(ctx, func(tx *store.Tx) (err error) {
		if n, err = tx.NodeGet(ctx, ref); err != nil {
			return err
		}
		if err := s.holds.On(nil); err != nil && to == node.Removed {
			return err
		}
		return setNode(ctx, tx, c, n, to, revision)
	})
	if errs.Is(err, errs.InUse) {
		return n, s.blocked(ctx, n, err)
	}
	if err != nil || to == node.Removed {
		return n, err
	}
	s.roomMade()
	return s.Node(ctx, n.ID.String())
}

func setNode(ctx context.Context, tx *store.Tx, c Caller, n node.Node, to node.State, revision *int64) error {
	if err := n.Change(to); err != nil {
		return err
	}
	if n.State == to && revision == nil {
		return nil
	}
	if to != node.Cordoned { // what is under way counts on that
		if err := tx.DrainRunning(ctx, n.ID, n.Name); err != nil {
			return err
		}
	}
	if err := tx.NodeSetState(ctx, n, to, revision); err != nil {
		return err
	}
	action := map[node.State]string{node.Active: "node.uncordon", node.Cordoned: "node.cordon", node.Removed: "node.remove"}[to]
	return tx.AuditInsert(ctx, c.record(action, "node", n.ID, n.Name))
}

// mostBlockers of a refusal are named.
const mostBlockers = 20

// blocked names the VMs that keep a node from being removed.
func (s *Service) blocked(ctx context.Context, n node.Node, refusal error) error {
	vms, _, err := s.cfg.Store.VMList(ctx, s.cfg.Project, store.Page{Limit: mostBlockers, Filters: map[string]string{"node": n.Name}})
	if err != nil {
		return refusal // that it is refused matters more than why
	}
	e := errs.As(refusal)
	for _, v := range vms {
		e = e.BlockedBy(v.Intent.Name)
	}
	return e
}

// What a host has of something is taken up to these: more than there is in any.
const (
	mostCPUs  = 1 << 16
	mostBytes = 1 << 56
)

// mostModels of boards and of processors are taken of a node.
const mostModels = 512

// mostDevices of one kind are taken of a host.
const mostDevices = 1024

// valid gives the words of a list that can be true.
func valid(list []string, can func(string) bool) (out []string) {
	for _, s := range list[:min(len(list), mostModels)] {
		if can(s) {
			out = append(out, s)
		}
	}
	return out
}

// texts takes up words of a host.
func texts(words []string) (out []string) {
	for _, w := range words[:min(len(words), mostDevices)] {
		out = append(out, nodelink.Text(w))
	}
	return out
}

// mostFlags bounds the features that a processor has, in bytes.
const mostFlags = 8 << 10

// cpuFlags takes the names of features alone from what a node sends.
func cpuFlags(w string) string {
	const named = " _.-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	return strings.Map(func(r rune) rune {
		if !strings.ContainsRune(named, r) {
			return -1
		}
		return r
	}, w[:min(len(w), mostFlags)])
}

func inventory(w nodelink.Inventory) node.Inventory {
	text := nodelink.Text
	w.CPUs = min(max(w.CPUs, 0), mostCPUs)
	for _, size := range []*int64{&w.MemoryBytes, &w.StorageBytes, &w.ImageCacheBytes} {
		*size = min(max(*size, 0), mostBytes)
	}
	inv := node.Inventory{
		Hostname: text(w.Hostname), Kernel: text(w.Kernel), OS: text(w.OS), CPUModel: text(w.CPUModel), CPUs: w.CPUs, MemoryBytes: w.MemoryBytes,
		Hypervisor: text(w.Hypervisor), HypervisorVersion: text(w.HypervisorVersion),
		Acceleration: text(w.Acceleration), AccelerationReason: text(w.AccelerationReason),
		StorageBytes: w.StorageBytes, ImageCacheBytes: w.ImageCacheBytes,
		Confinement: texts(w.Confinement), Unconfined: texts(w.Unconfined), Limits: texts(w.Limits),
	}
	inv.MachineTypes, inv.CPUModels = valid(w.MachineTypes, vm.ValidBoard), valid(w.CPUModels, vm.ValidCPU)
	inv.Firmware = valid(w.Firmware, vm.ValidFirmware)
	inv.LiveMigration, inv.WarmMigration, inv.CPUFlags = w.LiveMigration, w.WarmMigration, cpuFlags(w.CPUFlags)
	for _, n := range w.NUMA {
		n.CPUs = text(n.CPUs)
		inv.NUMA = append(inv.NUMA, node.NUMANode(n))
	}
	for _, d := range w.Disks {
		d.Name, d.Model = text(d.Name), text(d.Model)
		inv.Disks = append(inv.Disks, node.Disk(d))
	}
	for _, h := range w.HugePages {
		inv.HugePages = append(inv.HugePages, node.HugePages(h))
	}
	for _, p := range w.PCI[:min(len(w.PCI), mostDevices)] {
		p.Address, p.Class, p.Vendor, p.Device = text(p.Address), text(p.Class), text(p.Vendor), text(p.Device)
		p.Driver, p.IOMMUGroup = text(p.Driver), text(p.IOMMUGroup)
		inv.PCI = append(inv.PCI, node.PCIDevice(p))
	}
	for _, i := range w.Interfaces[:min(len(w.Interfaces), mostDevices)] {
		i.Name, i.MAC = text(i.Name), text(i.MAC)
		inv.Interfaces = append(inv.Interfaces, node.Interface(i))
	}
	for _, b := range w.Bridges[:min(len(w.Bridges), mostDevices)] {
		inv.Bridges = append(inv.Bridges, node.Bridge{Name: text(b.Name), Allowed: b.Allowed})
	}
	return inv
}
