// Package controltest makes a whole cluster in one test process: a real
// database, the use-cases and workflows, and real agents on simulated hosts. The
// only part left out is the network: commands go to the agent's handler as the
// JSON the wire would carry.
package controltest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/engine/blob"
	"github.com/novacron/novacron/internal/engine/remote"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// swapPatience of the cluster's agents: nobody waits longer for a server that is not there.
const swapPatience = 3 * time.Second

// stallWindow of the cluster's agents: what stalls is seen soon.
const stallWindow = time.Second

// Cluster is a control plane with its nodes.
type Cluster struct {
	DB      *storetest.DB
	Store   *store.Store
	Service *control.Service
	Env     flows.Env
	Project id.ID
	Images  *blob.Dir
	Nodes   []*Node
	// Random, unless nil, is what addresses of network interfaces are made of.
	Random io.Reader
	// Swapping and Swapped, unless nil, come before and after a node's asking for a VM. With
	// an error the node hears nothing.
	Swapping, Swapped func(*Node) error
	// Reaching, unless nil, comes before one node opens a stream to another's door, and may
	// fail it.
	Reaching func(stream string) error

	// shared is the folder of the storage pool "shared" that all nodes have; empty for none.
	shared string
	elsewhere
	lane     lane
	acceptor atomic.Pointer[workflow.Executor]
	driver   atomic.Pointer[workflow.Executor]
	mu       sync.Mutex
	byID     map[id.ID]*Node
	ready    image.Image
}

// Host is what a node's agent works on, and what it can be asked afterwards.
type Host interface {
	// Hypervisor opens the host's driver for a new agent.
	Hypervisor(sink hypervisor.Sink) (hypervisor.Driver, error)
	// Volumes is where disks are.
	Volumes() volume.Driver
	// Images is the node's cache; it has the cluster's image.
	Images() agent.Images
	// Leftovers lists what hypervisors left on the host, each naming its VM.
	Leftovers() []string
	// Executing counts the guests that execute, by VM.
	Executing() map[id.ID]int
	// Crash ends the process of a VM from outside; false when there is none.
	Crash(v id.ID) bool
	// PowerLoss ends everything that a reboot of the host ends.
	PowerLoss()
}

// Node is one host with a real agent.
type Node struct {
	ID   id.ID
	Name string
	Host Host
	// Machines and CPUs are what guests here can be made of, as the node will say.
	Machines, CPUs []string

	cluster *Cluster
	dir     string
	boots   int
	mu      sync.Mutex
	epoch   gen.NodeEpoch
	agent   *agent.Agent
	down    bool
}

// Admin is who asks in tests.
func Admin() control.Caller {
	return control.Caller{Principal: auth.Principal{Name: "test", Role: auth.Administrator, Origin: "test"}}
}

// New makes a cluster of n simulated nodes with one ready image, "tiny".
func New(tb testing.TB, n int) *Cluster {
	tb.Helper()
	return NewOn(tb, n, tinyImage, newSimHost)
}

// tinyImage is one that nothing ever boots.
var tinyImage = image.File{Role: image.RoleDisk, SHA256: strings.Repeat("ab", 32), SizeBytes: 4096, Format: "qcow2", VirtualBytes: unit.GiB}

// NewOn makes a cluster of n nodes on hosts of a kind.
func NewOn(tb testing.TB, n int, img image.File, newHost func(tb testing.TB, node id.ID, dir string) Host) *Cluster {
	tb.Helper()
	return newOn(tb, n, img, newHost, "")
}

func newOn(tb testing.TB, n int, img image.File, newHost func(tb testing.TB, node id.ID, dir string) Host, shared string) *Cluster {
	tb.Helper()
	db := storetest.New(tb)
	c := &Cluster{DB: db, shared: shared, Store: store.New(db.App), byID: map[id.ID]*Node{}, lane: lane{offers: map[string]offer{}, doors: map[string]*landing{}, apart: map[[2]id.ID]bool{}}}
	ctx := tb.Context()
	cluster := store.Cluster{
		ID: id.New(), Incarnation: id.New(), CACertPEM: "none", CAKeySealed: []byte{0}, CursorKeySealed: []byte{0},
	}
	must(tb, c.Store.ClusterInit(ctx, cluster))
	var err error
	c.Project, err = c.Store.ProjectDefault(ctx)
	must(tb, err)
	c.elsewhere = newElsewhere(tb)
	c.Images, err = blob.Open(c.folder)
	must(tb, err)
	web := remote.New([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	c.Service = control.New(control.Config{
		Store: c.Store, Cluster: cluster, Project: c.Project, Images: c.Images, Clock: clock.System{}, Random: draws{c},
		Fetch: web, Live: leases{c}, Log: slog.New(slog.DiscardHandler), Committed: c.committed, Recorded: func() {}, Accept: c.accept, Nodes: c,
	})
	c.Env = flows.Env{
		Store: c.Store, Nodes: c, Candidates: flows.NewCandidates(c.Store, c.reporting, c.Service.Holds(), clock.System{}), Files: contents{c.Images, c.streams}, Content: c.Images, Fetch: web, Images: &flows.Images{}, Cluster: cluster.Incarnation,
		Holds: c.Service.Holds(), Drain: c.Service.AdvanceDrain,
	}
	for i := range n {
		c.addNode(tb, fmt.Sprintf("n%d", i+1), newHost)
	}
	c.addImage(tb, img)
	return c
}

// draws is what a cluster's control plane draws from.
type draws struct{ *Cluster }

// Read implements io.Reader.
func (d draws) Read(p []byte) (int, error) {
	if d.Random == nil {
		return rand.Read(p)
	}
	return d.Random.Read(p)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func (c *Cluster) addNode(tb testing.TB, name string, newHost func(testing.TB, id.ID, string) Host) {
	tb.Helper()
	n := &Node{ID: id.New(), Name: name, cluster: c, dir: tb.TempDir(), Machines: []string{"pc-q35-7.2"}, CPUs: []string{vm.CPUBaseline2, vm.CPUMax}}
	n.Host = newHost(tb, n.ID, n.dir)
	c.byID[n.ID] = n
	c.Nodes = append(c.Nodes, n)
	must(tb, c.Store.InTx(tb.Context(), func(tx *store.Tx) error {
		return tx.NodeInsert(tb.Context(), node.Node{ID: n.ID, Name: name, Simulated: true, KeyHash: make([]byte, 32)})
	}))
	must(tb, n.Start(tb.Context()))
	tb.Cleanup(n.Kill)
}

func (c *Cluster) reporting(node id.ID) bool {
	n := c.node(node)
	if n == nil {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.agent != nil && !n.down
}

func (c *Cluster) node(n id.ID) *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[n]
}

// Call implements flows.Nodes.
func (c *Cluster) Call(ctx context.Context, to id.ID, cmd nodelink.Command, reply any) error {
	n := c.node(to)
	if n == nil {
		return errs.New(errs.NodeUnreachable, "there is no such node")
	}
	n.mu.Lock()
	a, epoch, down := n.agent, n.epoch, n.down
	n.mu.Unlock()
	if a == nil || down {
		return errs.New(errs.NodeUnreachable, "the node is down")
	}
	if f, ok := cmd.(nodelink.Fenced); ok {
		f.Head().NodeEpoch = epoch
	}
	body, err := json.Marshal(cmd)
	if err != nil {
		return err
	}
	v, err := a.Handle(ctx, n.cluster.streams, cmd.Method(), body)
	if err != nil {
		return nodelink.NewWireError(err).Err()
	}
	if body, err = json.Marshal(v); err != nil || reply == nil {
		return err
	}
	return json.Unmarshal(body, reply)
}

func (c *Cluster) addImage(tb testing.TB, f image.File) {
	tb.Helper()
	i := image.Image{ID: id.New(), ProjectID: c.Project, Name: "tiny", Kind: image.Disk}
	must(tb, c.Store.InTx(tb.Context(), func(tx *store.Tx) error {
		if err := tx.ImageInsert(tb.Context(), i); err != nil {
			return err
		}
		if err := tx.ImageFilePut(tb.Context(), i, f); err != nil {
			return err
		}
		return tx.ImageSetState(tb.Context(), i, image.Ready, nil)
	}))
	c.ready = i
}

// NewVM is a request that the cluster can fulfil.
func (c *Cluster) NewVM(name string, start bool) control.NewVM {
	return control.NewVM{
		Spec: vm.Spec{
			Name: name, CPUs: 1, MemoryBytes: 64 * unit.MiB,
			Disks:     c.sharedVM([]vm.DiskSpec{{SizeBytes: unit.GiB}, {SizeBytes: 64 * unit.MiB}}),
			NICs:      []vm.NICSpec{{}},
			CloudInit: &vm.CloudInit{UserData: "#cloud-config\nruncmd: [id]\n"},
		},
		Image: "tiny", Start: start,
	}
}

// Leftovers lists what hosts hold for VMs that are gone, or that are elsewhere,
// or that should not run; and counters of nodes that disagree with their VMs.
func (c *Cluster) Leftovers(ctx context.Context) ([]string, error) {
	out, err := c.Store.NodeUsageDrift(ctx)
	if err != nil {
		return nil, err
	}
	views, _, err := c.Store.VMList(ctx, c.Project, store.Page{Limit: 1000})
	if err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		held, err := n.held(ctx)
		if err != nil {
			return nil, err
		}
		mine := n.accounted(views)
		for _, h := range held {
			if !mentions(h, mine) {
				out = append(out, n.Name+": "+h)
			}
		}
	}
	for v, n := range c.executing() {
		if n > 1 {
			out = append(out, fmt.Sprintf("VM %s runs %d times", v, n))
		}
	}
	drift, err := c.Store.PoolUsageDrift(ctx)
	if err != nil {
		return nil, err
	}
	out = append(append(out, drift...), c.leftShared(views)...)
	content, err := c.leftContent(ctx)
	return append(out, content...), err
}

// accounted lists the ids of what VMs of this node may have on it.
func (n *Node) accounted(views []vm.View) map[string]bool {
	mine := map[string]bool{}
	for _, v := range views {
		if v.Intent.NodeID == nil || *v.Intent.NodeID != n.ID {
			continue
		}
		mine[v.Intent.ID.String()] = true
		for _, d := range v.Volumes {
			mine[d.ID.String()] = true
		}
	}
	return mine
}

func (c *Cluster) executing() map[id.ID]int {
	all := map[id.ID]int{}
	for _, n := range c.Nodes {
		for v, times := range n.Host.Executing() {
			all[v] += times
		}
	}
	return all
}

// held reads what the host has: guests, volumes, records that are not mere
// fences.
func (n *Node) held(ctx context.Context) ([]string, error) {
	out := n.Host.Leftovers()
	vols, err := n.Host.Volumes().List(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range vols {
		out = append(out, "volume "+v.ID.String())
	}
	kept, _ := filepath.Glob(filepath.Join(n.dir, "suspended", "*"))
	out = append(append(out, kept...), n.firmware()...)
	files, err := filepath.Glob(filepath.Join(n.dir, "records", "*"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		var rec struct {
			VM     id.ID `json:"vm"`
			Erased bool  `json:"erased"`
			// a record of commands alone holds nothing either
			Machine json.RawMessage `json:"machine"`
			Bases   json.RawMessage `json:"bases"`
		}
		if err := json.Unmarshal(b, &rec); err != nil {
			return nil, err
		}
		if !rec.Erased && (rec.Machine != nil || rec.Bases != nil) {
			out = append(out, "record "+rec.VM.String())
		}
	}
	return out, nil
}

func mentions(what string, ids map[string]bool) bool {
	for _, w := range strings.FieldsFunc(what, func(r rune) bool { return !strings.ContainsRune("0123456789abcdef-", r) }) {
		if ids[w] {
			return true
		}
	}
	return false
}

// Running lists the VMs that execute, by id.
func (c *Cluster) Running() []string {
	var out []string
	for v, n := range c.executing() {
		for range n {
			out = append(out, v.String())
		}
	}
	slices.Sort(out)
	return out
}

// Drive runs every open job to its end, undisturbed.
func (c *Cluster) Drive(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e := workflow.New(workflow.Options{
		Pool: c.DB.App, Members: alone{id.New()}, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler), Flows: flows.Bound(c.Env),
		Committed: func() {},
	})
	c.driver.Store(e)
	defer c.driver.Store(nil)
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	for {
		var open int
		err := c.DB.App.QueryRow(ctx, "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running', 'waiting', 'unwinding')").Scan(&open)
		if err == nil && open > 0 {
			err = clock.System{}.Sleep(ctx, pollEvery)
		}
		if err != nil || open == 0 {
			cancel()
			err = errors.Join(err, ended(<-done))
			return err
		}
	}
}

// ended: an executor that we ended ended well.
func ended(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// pollEvery is how often Drive looks.
const pollEvery = 2 * time.Millisecond

// alone is the membership of a server without others.
type alone struct{ id id.ID }

// ID implements workflow.Membership.
func (a alone) ID() id.ID { return a.id }

// Dead implements workflow.Membership.
func (alone) Dead(id.ID) bool { return false }

// Bind implements workflow.Membership.
func (alone) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}

// leases is what the cluster knows of its own nodes.
type leases struct{ c *Cluster }

// Reporting implements control.Leases.
func (l leases) Reporting(node id.ID) bool { return l.c.reporting(node) }

// AllReporting implements control.Leases.
func (l leases) AllReporting() []id.ID {
	var out []id.ID
	for _, n := range l.c.Nodes {
		if l.c.reporting(n.ID) {
			out = append(out, n.ID)
		}
	}
	return out
}

// Silent implements control.Leases.
func (l leases) Silent(node id.ID, _ int64) bool { return !l.c.reporting(node) }

// Heard implements control.Leases.
func (leases) Heard(id.ID, int64) {}

// Servers implements control.Leases.
func (leases) Servers() []string { return nil }
