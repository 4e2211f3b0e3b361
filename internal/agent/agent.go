package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/novacron/novacron/internal/domain/vm"
	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/driver/volume/pool"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Config is what an agent is made of.
type Config struct {
	Node id.ID
	// Name is the one the node joined under.
	Name string
	// Cluster is the incarnation that the node follows; Follow makes another one
	// durable, before it counts.
	Cluster id.ID
	Follow  func(cluster id.ID) error
	// Epoch is this process's incarnation, already made durable.
	Epoch gen.NodeEpoch
	// DataDir holds records and the image cache.
	DataDir string
	// Boot is the host's boot id.
	Boot string
	// NewHypervisor makes the driver with the agent's sink.
	NewHypervisor func(hypervisor.Sink) (hypervisor.Driver, error)
	Volumes       volume.Driver
	// Pools are the storage pools that this node has besides.
	Pools  []*pool.Pool
	Images Images
	// Neighbours may be nil: then nothing is given to other nodes, or taken.
	Neighbours Neighbours
	// Inventory looks at the host.
	Inventory func(context.Context) (nodelink.Inventory, error)
	Clock     clock.Clock
	Log       *slog.Logger
	// Collectors are metrics of whoever runs the agent.
	Collectors []prometheus.Collector
	// SwapPatience is how long the target of a live migration asks servers for the VM, whose
	// guest stands still meanwhile, before it gives up; 0 for 20 s.
	SwapPatience time.Duration
	// StallWindow is for how long a guest's memory on its way is watched before it is said to
	// stall; 0 for migration.StallWindow.
	StallWindow time.Duration
	// Volatile records are not fsynced: for simulated nodes only.
	Volatile bool
}

// Images is the node's cache of image files.
type Images interface {
	// Ensure brings a file into the cache. When it is not there, or damaged, the
	// first of from that succeeds writes its content; with none it is
	// errs.NotFound or errs.ImageMismatch.
	Ensure(ctx context.Context, f nodelink.ImageFile, from ...Fetch) error
	// Path is where a file of the cache lies; errs.NotFound when it does not.
	Path(f nodelink.ImageFile) (string, error)
	// Drop removes files; absent ones are no error.
	Drop(sha256 []string) error
}

// Peer is the server a command came from.
type Peer interface {
	// Bulk dials that server back with a one-time ticket.
	Bulk(ctx context.Context, ticket string) (Stream, error)
}

// Agent carries out commands on one node.
type Agent struct {
	cfg     Config
	driver  hypervisor.Driver
	records *records
	reports *reporter
	log     *slog.Logger
	meter   *meter
	// beats numbers the lease renewals of this incarnation, over all sessions; the
	// incarnation is the upper half, so that renewals grow across restarts
	beats atomic.Int64

	mu     sync.Mutex
	guests map[id.ID]*guest
	// cluster is the incarnation whose commands are obeyed
	cluster id.ID
	// images is held while image files are dropped, and shared while a VM takes one
	// up: between the look at a file and the record that keeps it, nobody drops it
	images  sync.RWMutex
	plan    hostPlan
	glances glances
	samples samples
	// up are the ways to servers that there are
	up map[*Up]bool
	// keyboards are those of screens
	keyboards keyboards
	// life ends with Close; work is what goes on in the background until then.
	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup
}

// New opens the node's records and drivers. Start adopts what runs.
func New(cfg Config) (*Agent, error) {
	recs, err := openRecords(filepath.Join(cfg.DataDir, "records"), !cfg.Volatile)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(cfg.DataDir, savedDir), 0o700); err != nil {
		return nil, errs.New(errs.HostFailure, "the folder of saved memory cannot be made").Because(err)
	}
	if err := os.MkdirAll(filepath.Join(cfg.DataDir, firmwareDir), 0o700); err != nil {
		return nil, errs.New(errs.HostFailure, "the folder of firmware variables cannot be made").Because(err)
	}
	a := &Agent{
		cfg: cfg, records: recs, guests: map[id.ID]*guest{}, up: map[*Up]bool{}, cluster: cfg.Cluster,
		log:     cfg.Log,
		reports: newReporter(cfg.Epoch), glances: newGlances(), samples: newSamples(),
	}
	a.life, a.end = context.WithCancel(context.Background())
	a.meter = newMeter(a)
	if err := a.plan.open(cfg.DataDir, !cfg.Volatile, cfg.Log); err != nil {
		return nil, err
	}
	a.driver, err = cfg.NewHypervisor(a.seen)
	if f, ok := a.driver.(foreteller); ok {
		a.reports.foretold(f)
	}
	return a, err
}

// Close stops watching; guests go on.
func (a *Agent) Close() error {
	a.end()
	err := a.driver.Close()
	a.work.Wait()
	return err
}

// Start reads the records, adopts what the host runs, and launches again what a
// reboot of the host ended. It must have returned before commands are served.
func (a *Agent) Start(ctx context.Context) error {
	a.lookAtPools(ctx)
	recs, err := a.records.load(a.log)
	if err != nil {
		return err
	}
	for _, rec := range recs {
		a.guests[rec.VM] = newGuest(rec)
		a.reports.explain(rec.VM, rec.Anew)
	}
	found, err := a.driver.Adopt(ctx)
	if err != nil {
		return err
	}
	alive := map[id.ID]bool{}
	for _, s := range found {
		a.adopt(s)
		alive[s.VM] = s.Phase.OnNode()
	}
	var ended []*guest
	for v, g := range a.guests {
		again, err := a.recover(g, alive[v])
		if err != nil {
			return err
		}
		if again {
			ended = append(ended, g)
		}
		if err := a.findFrozen(g, alive[v]); err != nil {
			return err
		}
		if err := a.resumeMove(ctx, g); err != nil {
			return err
		}
	}
	a.bringUp(ctx, ended)
	return nil
}

// recover brings one VM to what its record says, after a start of the agent. It
// tells whether the VM is to be started again.
func (a *Agent) recover(g *guest, alive bool) (again bool, err error) {
	rec := g.snapshot()
	switch {
	case alive && rec.Machine != nil && rec.Boot != a.cfg.Boot:
		// launched, and the agent died before it could write that down
		return false, g.change(a.records, func(r *record) { r.Boot = a.cfg.Boot })
	case alive || rec.Machine == nil || rec.Epoch == 0:
		return false, nil
	case rec.Move.sentAway():
		a.lost(rec, "its process ended after it was sent to another node")
		return false, nil
	case rec.PowerOn && rec.Boot != a.cfg.Boot:
		return true, nil
	default:
		a.lost(rec, "its process was gone when the node's agent started")
	}
	return false, nil
}

// lost reports a VM of which the host holds no trace, unless something was seen
// of it: nobody may go on believing that it runs.
func (a *Agent) lost(rec record, why string) {
	phase := vm.PhaseCrashed
	switch {
	case a.saved(rec.VM):
		phase, why = vm.PhaseSuspended, ""
	case !rec.PowerOn:
		phase, why = exited, ""
	}
	a.reports.fill(hypervisor.Status{
		Ref: hypervisor.Ref{VM: rec.VM, Epoch: rec.Epoch}, Phase: phase, Reason: why, Since: a.cfg.Clock.Now(),
	})
}

func (a *Agent) adopt(s hypervisor.Status) {
	a.seen(s)
	if _, ok := a.guests[s.VM]; ok || !s.Phase.OnNode() {
		return
	}
	a.log.Warn("a guest without a record was adopted", "vm", s.VM, "owner_epoch", s.Epoch)
	a.guests[s.VM] = newGuest(record{VM: s.VM, Epoch: s.Epoch})
}

// Hello is what the agent says of itself.
func (a *Agent) Hello(ctx context.Context, version string) (nodelink.Hello, error) {
	inv, err := a.cfg.Inventory(ctx)
	if err != nil {
		return nodelink.Hello{}, err
	}
	return nodelink.Hello{
		Node: a.cfg.Node, NodeEpoch: a.cfg.Epoch, AgentVersion: version,
		Protocol: nodelink.Protocol, Inventory: inv, Cluster: a.following(), Name: a.cfg.Name,
		Plan: a.plan.digest(), Pools: a.pools(),
	}, nil
}

func (a *Agent) guest(v id.ID) *guest {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.guests[v]
	if g == nil {
		g = newGuest(record{VM: v})
		a.guests[v] = g
	}
	return g
}

// handler carries out one method.
type handler func(ctx context.Context, a *Agent, p Peer, body []byte) (any, error)

// handlers is every command the agent knows.
var handlers = map[string]handler{
	(*nodelink.EnsureImages)(nil).Method():   fenced((*Agent).ensureImages),
	(*nodelink.CreateVolumes)(nil).Method():  fenced((*Agent).createVolumes),
	(*nodelink.CopyVolumes)(nil).Method():    fenced((*Agent).copyVolumes),
	(*nodelink.GrowVolume)(nil).Method():     fenced((*Agent).growVolume),
	(*nodelink.DeleteVolumes)(nil).Method():  fenced((*Agent).deleteVolumes),
	(*nodelink.WriteSeed)(nil).Method():      fenced((*Agent).writeSeed),
	(*nodelink.Launch)(nil).Method():         recording((*Agent).launchCommand),
	(*nodelink.Shutdown)(nil).Method():       fenced((*Agent).shutdown),
	(*nodelink.PowerOff)(nil).Method():       fenced((*Agent).powerOff),
	(*nodelink.Pause)(nil).Method():          fenced((*Agent).pause),
	(*nodelink.Resume)(nil).Method():         fenced((*Agent).resume),
	(*nodelink.Suspend)(nil).Method():        fenced((*Agent).suspend),
	(*nodelink.SetLimits)(nil).Method():      fenced((*Agent).setLimits),
	(*nodelink.SetMedium)(nil).Method():      fenced((*Agent).setMedium),
	(*nodelink.Look)(nil).Method():           fenced((*Agent).look),
	(*nodelink.Erase)(nil).Method():          fenced((*Agent).erase),
	(*nodelink.OfferVM)(nil).Method():        fenced((*Agent).offerVM),
	(*nodelink.TakeVM)(nil).Method():         fenced((*Agent).takeVM),
	(*nodelink.AskTransfer)(nil).Method():    plain((*Agent).askTransfer),
	(*nodelink.DepartVM)(nil).Method():       fenced((*Agent).departVM),
	(*nodelink.ReceiveVM)(nil).Method():      fenced((*Agent).receiveVM),
	(*nodelink.SendVM)(nil).Method():         fenced((*Agent).sendRunning),
	(*nodelink.CutoverVM)(nil).Method():      fenced((*Agent).cutoverVM),
	(*nodelink.SettleVM)(nil).Method():       fenced((*Agent).settleVM),
	(*nodelink.AskMove)(nil).Method():        plain((*Agent).askMove),
	(*nodelink.PaceMove)(nil).Method():       plain((*Agent).paceMove),
	(*nodelink.SampleMemory)(nil).Method():   plain((*Agent).sampleMemory),
	(*nodelink.OfferImage)(nil).Method():     plain((*Agent).offerImage),
	(*nodelink.AdmitRelay)(nil).Method():     plain((*Agent).admitRelay),
	(*nodelink.OfferProbe)(nil).Method():     plain((*Agent).offerProbe),
	(*nodelink.ProbeNode)(nil).Method():      plain((*Agent).probeNode),
	(*nodelink.DropImages)(nil).Method():     plain((*Agent).dropImages),
	(*nodelink.HostPlan)(nil).Method():       plain((*Agent).takePlan),
	(*nodelink.OpenConsole)(nil).Method():    plain((*Agent).openConsole),
	(*nodelink.OpenLog)(nil).Method():        plain((*Agent).openLog),
	(*nodelink.OpenDisplay)(nil).Method():    plain((*Agent).openDisplay),
	(*nodelink.OpenScreenshot)(nil).Method(): plain((*Agent).openScreenshot),
	(*nodelink.AskGuest)(nil).Method():       plain((*Agent).askGuest),
	(*nodelink.RunInGuest)(nil).Method():     plain((*Agent).runInGuest),
	(*nodelink.FreezeGuest)(nil).Method():    plain((*Agent).freezeGuest),
	(*nodelink.ThawGuest)(nil).Method():      plain((*Agent).thawGuest),
	(*nodelink.ReadVolume)(nil).Method():     plain((*Agent).readVolume),
	(*nodelink.Metrics)(nil).Method():        plain((*Agent).metrics),
	(*nodelink.ListHoldings)(nil).Method():   plain((*Agent).listHoldings),
}

// Handle carries out a command that came from a server.
func (a *Agent) Handle(ctx context.Context, p Peer, method string, body []byte) (any, error) {
	h, ok := handlers[method]
	if !ok {
		return nil, errs.New(errs.Unsupported, "this agent does not know the command %q: upgrade it", errs.Clip(method))
	}
	began := a.cfg.Clock.Boot()
	v, err := h(ctx, a, p, body)
	a.meter.carried(method, began, err)
	return v, err
}

func decode[C any](body []byte) (*C, error) {
	c := new(C)
	if err := json.Unmarshal(body, c); err != nil {
		return nil, errs.New(errs.InvalidJSON, "the command is not understood").Because(err)
	}
	return c, nil
}

func plain[C any](run func(*Agent, context.Context, Peer, *C) (any, error)) handler {
	return func(ctx context.Context, a *Agent, p Peer, body []byte) (any, error) {
		c, err := decode[C](body)
		if err != nil {
			return nil, err
		}
		return run(a, ctx, p, c)
	}
}

// interrupted words the failure of a step that was not given the time to succeed:
// the next attempt may.
func interrupted(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || errs.CodeOf(err).Retryable() {
		return err
	}
	return errs.New(errs.Timeout, "the step was broken off: its time was over, its server went away, or another took over").Because(err)
}

// fenced wraps a command about one VM: its turn, its fence, its time budget, its
// remembered answer.
func fenced[C any, P interface {
	*C
	nodelink.Fenced
}](run func(*Agent, context.Context, Peer, *guest, P) (any, error)) handler {
	return fencedBy[C, P](run, (*guest).admit)
}

// recording is fenced for a command whose first act is to change the VM's record
// (guest.change): the fence is written with that, at once instead of twice.
func recording[C any, P interface {
	*C
	nodelink.Fenced
}](run func(*Agent, context.Context, Peer, *guest, P) (any, error)) handler {
	return fencedBy[C, P](run, (*guest).admitUnwritten)
}

func fencedBy[C any, P interface {
	*C
	nodelink.Fenced
}](run func(*Agent, context.Context, Peer, *guest, P) (any, error), admit func(*guest, *nodelink.Header, id.ID, *records) (*answer, error)) handler {
	return func(ctx context.Context, a *Agent, p Peer, body []byte) (any, error) {
		c, err := decode[C](body)
		if err != nil {
			return nil, err
		}
		h := P(c).Head()
		if h.NodeEpoch != a.cfg.Epoch {
			return nil, errs.New(errs.StaleEpoch, "the command is for agent incarnation %d; this is %d", h.NodeEpoch, a.cfg.Epoch)
		}
		if h.BudgetMS > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Duration(h.BudgetMS)*time.Millisecond)
			defer cancel()
		}
		g := a.guest(h.VM)
		cluster := a.following()
		ctx, release, err := g.take(ctx, h, cluster)
		if err != nil {
			return nil, err
		}
		defer release()
		old, err := admit(g, h, cluster, a.records)
		if err != nil {
			return nil, err
		}
		if old != nil {
			return old.body, old.err
		}
		v, err := run(a, ctx, p, g, P(c))
		err = interrupted(ctx, err)
		g.remember(h.Step, v, err)
		return v, err
	}
}
