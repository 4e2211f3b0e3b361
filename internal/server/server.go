package server

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/control/tasks"
	"github.com/novacron/novacron/internal/engine/admit"
	"github.com/novacron/novacron/internal/engine/blob"
	"github.com/novacron/novacron/internal/engine/lan"
	"github.com/novacron/novacron/internal/engine/lease"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/engine/reconcile"
	"github.com/novacron/novacron/internal/engine/remote"
	"github.com/novacron/novacron/internal/engine/sequence"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Options say which server to be.
type Options struct {
	// DatabaseURL is the application role's. Its pool's size can be set there.
	DatabaseURL string
	// OwnerURL, unless empty, is the role's that migrates the schema at start.
	OwnerURL string
	// DataDir holds the key file and the images.
	DataDir string
	// Listen is host:port of the one API port; port 0 takes any.
	Listen string
	// Advertise are the addresses at which agents and people reach this server;
	// Listen's when empty.
	Advertise []string
	// Socket is the path of the local administrator's UNIX socket; empty for none.
	Socket string
	// SocketUIDs may use it, besides root.
	SocketUIDs []uint32
	// SetupToken makes a fresh setup token if nobody has spent one yet.
	SetupToken bool
	// Announce tells the local network of this server, where it is reached from other
	// machines.
	Announce bool
	// Limits bound what is taken at once, and from whom.
	Limits  Limits
	Version string
	Clock   clock.Clock
	Log     *slog.Logger
	// Ready is called once requests are served.
	Ready func(Info)
}

// Info is what a started server says of itself.
type Info struct {
	// Address is host:port of the API.
	Address string
	// Fingerprint is of the cluster's root certificate, SHA-256: it stays the same
	// over restarts and servers, so people compare it once.
	Fingerprint string
	// SetupToken is the one-time token of the first person; empty once spent.
	SetupToken string
}

// Server is a running control plane process.
type Server struct {
	opts        Options
	log         *slog.Logger
	control     *control.Service
	agents      *agents
	tickets     *tickets
	pages       pages
	member      *lease.Member
	seq         *sequence.Sequencer
	tasks       *reconcile.Runner
	exec        *workflow.Executor
	live        *control.Liveness
	pool        *pgxpool.Pool
	meter       *meter
	limits      *limits
	denials     *denials
	watched     watched
	fingerprint string
	root        *x509.Certificate
	routes      []Route
	mux         http.Handler
	// life ends when the server begins to stop.
	life context.Context //nolint:containedctx // it ends with the server and not with a request: sockets, which outlive their requests, watch it
}

// stopTimeout is how long requests under way may take at a stop.
const stopTimeout = 10 * time.Second

// Run is a server until ctx ends; then it finishes the requests under way, gives
// its claims back and returns.
func Run(ctx context.Context, o Options) error {
	if err := o.Limits.check(); err != nil {
		return err
	}
	if o.OwnerURL != "" {
		if err := store.Migrate(ctx, o.OwnerURL); err != nil {
			return err
		}
	}
	st, err := store.Open(ctx, o.DatabaseURL)
	if err != nil {
		return err
	}
	defer st.Pool().Close()
	l, err := listen(ctx, o.Listen)
	if err != nil {
		return err
	}
	defer l.Close()
	if len(o.Advertise) == 0 {
		o.Advertise = []string{l.Addr().String()}
	}
	s, cert, err := build(ctx, o, st)
	if err != nil {
		return err
	}
	return s.run(ctx, l, cert)
}

func build(ctx context.Context, o Options, st *store.Store) (*Server, *certificates, error) {
	pool := st.Pool()
	sec, err := openCluster(ctx, st, o.DataDir, o.Clock)
	if err != nil {
		return nil, nil, err
	}
	project, err := st.ProjectDefault(ctx)
	if err != nil {
		return nil, nil, err
	}
	images, err := blob.Open(filepath.Join(o.DataDir, "images"))
	if err != nil {
		return nil, nil, err
	}
	s := &Server{
		opts: o, log: o.Log, pages: pages{sec.cursorKey}, tickets: newTickets(o.Clock), pool: pool, meter: newMeter(o.Clock, o.Version),
		fingerprint: pki.Fingerprint(sec.ca.Cert), root: sec.ca.Cert, live: control.NewLiveness(st, o.Clock, o.Log),
	}
	dead := provenDead(o.DataDir, o.Log)
	s.member = lease.NewMember(lease.Options{
		Pool: pool, Address: o.Advertise[0], Version: o.Version, Clock: o.Clock, Log: o.Log, ProvenDead: dead,
	})
	if _, err := workflow.Release(ctx, pool, dead); err != nil {
		return nil, nil, err
	}
	if err := leaveName(o.DataDir, s.member.ID()); err != nil {
		o.Log.Warn("this server's name cannot be left for the next one here", "err", err)
	}
	s.seq = sequence.New(sequence.Options{Pool: pool, Clock: o.Clock, Log: o.Log})
	rate := o.Limits.or(0).NodeRate
	s.agents = &agents{tickets: s.tickets, clock: o.Clock, log: o.Log, sessions: map[id.ID]*session{}, relays: newRelays(o.Limits.or(0), o.Clock), calls: admit.NewBuckets[id.ID](rate, int(callsBurst*rate), mostNodes)}
	web := remote.New(o.Limits.ImportNetworks)
	s.control = control.New(control.Config{
		Accept: s.accept, Nodes: s.agents, Suspect: s.agents.look,
		Store: st, CA: sec.ca, Cluster: sec.cluster, Project: project, Images: images, Fetch: web, Address: o.Advertise[0], Live: s.live,
		Clock: o.Clock, Log: o.Log, Committed: s.committed, Recorded: s.seq.Nudge, RoomMade: func() { s.tasks.Nudge(tasks.PendingVMs) },
	})
	s.agents.control = s.control
	// before anything is done: what is held is not touched
	if err := s.control.Holds().Refresh(ctx); err != nil {
		return nil, nil, err
	}
	s.exec = workflow.New(workflow.Options{
		Pool: pool, Members: s.member, Clock: o.Clock, Log: o.Log, Committed: s.seq.Nudge,
		Flows: flows.Bound(flows.Env{
			Store: st, Nodes: s.agents, Candidates: flows.NewCandidates(st, s.live.Reporting, s.control.Holds(), o.Clock), Files: files{images, s.tickets}, Content: images, Fetch: web,
			Images: &flows.Images{}, Cluster: sec.cluster.Incarnation,
			Holds: s.control.Holds(), Drain: s.control.AdvanceDrain,
		}),
	})
	s.tasks = reconcile.New(o.Clock, o.Log, s.member, tasks.All(tasks.Env{
		Store: st, Images: images, Clock: o.Clock, Connected: s.agents.connected, Drop: s.agents.drop, Committed: s.committed, Nudge: func(task string) { s.tasks.Nudge(task) }, Held: func() bool { return s.control.Holds().Behind() != nil },
		CollectImages: s.control.CollectImages, RestartEnded: s.control.RestartEnded, TellPlans: s.control.TellPlans,
	})...)
	s.limits = newLimits(o.Limits, int(pool.Config().MaxConns), o.Clock, func(reason string) { s.meter.refused.WithLabelValues(reason).Inc() })
	s.denials = &denials{clock: o.Clock, write: s.control.Deny}
	s.agents.limits, s.agents.denials = s.limits, s.denials
	s.meter.watch(s)
	s.routes = s.table()
	s.mux = front(s.serveMux())
	return s, newCertificates(sec.ca, o.Advertise, o.Clock), nil
}

// accept takes a job on, as workflow.Executor.Accept does.
func (s *Server) accept(ctx context.Context, tx pgx.Tx, j workflow.NewJob) (*workflow.Birth, error) {
	return s.exec.Accept(ctx, tx, j)
}

// committed wakes whoever acts on commits.
func (s *Server) committed() {
	s.exec.Nudge()
	s.seq.Nudge()
}

// table is every route there is.
func (s *Server) table() []Route {
	var all []Route
	for _, rs := range [][]Route{s.systemRoutes(), s.metricsRoutes(), s.vmRoutes(), s.diskRoutes(), s.poolRoutes(), s.cdromRoutes(), s.guestRoutes(), s.nodeRoutes(), s.drainRoutes(), s.imageRoutes(), s.aliasRoutes(), s.uploadRoutes(), s.downloadRoutes(), s.jobRoutes(), s.migrationRoutes(), s.tokenRoutes(), s.documentRoutes(), s.recoveryRoutes(), s.streamRoutes(), s.screenRoutes()} {
		all = append(all, rs...)
	}
	return all
}

func (s *Server) serveMux() *http.ServeMux {
	g := &gate{log: s.log, meter: s.meter, authenticate: s.authenticate, limits: s.limits, denials: s.denials}
	mux := http.NewServeMux()
	for _, rt := range s.routes {
		mux.Handle(rt.Method+" "+rt.Path, g.wrap(rt))
	}
	mux.HandleFunc("/", nowhere)
	return mux
}

// run serves until ctx ends, then stops in order: no new work, requests finish,
// claims are given back, the loops end.
func (s *Server) run(ctx context.Context, l net.Listener, cert *certificates) error {
	s.life = ctx
	s.agents.life = ctx
	// what serves outlives ctx by the time it takes to stop
	work, endWork := context.WithCancel(context.WithoutCancel(ctx))
	defer endWork()
	streams, endStreams := context.WithCancel(context.WithoutCancel(ctx))
	defer endStreams()
	var loops sync.WaitGroup
	defer loops.Wait()
	defer endWork()
	loops.Go(func() { s.logEnd("membership", s.member.Run(work)) })
	select {
	case <-s.member.Ready():
	case <-ctx.Done():
		return nil
	}
	for _, f := range []func(context.Context){
		s.live.Run,
		func(ctx context.Context) { s.control.Holds().Run(ctx, s.opts.Clock, s.log) },
		func(ctx context.Context) { s.logEnd("executor", s.exec.Run(ctx)) },
		func(ctx context.Context) { s.logEnd("event hub", s.seq.Run(ctx)) },
		func(ctx context.Context) {
			s.member.Lead(ctx, sequence.Role, func(ctx context.Context, _ lease.Term) { s.seq.Lead(ctx) })
		},
		func(ctx context.Context) { s.logEnd("reconcilers", s.tasks.Run(ctx)) },
		s.announceNearby,
		s.denials.run,
	} {
		loops.Go(func() { f(work) })
	}
	return s.serve(ctx, streams, endStreams, l, cert)
}

func (s *Server) serve(ctx, streams context.Context, endStreams func(), l net.Listener, cert *certificates) error {
	public := s.httpServer(streams, cert)
	servers := []*http.Server{public}
	failed := make(chan error, 2)
	go func() { failed <- public.ServeTLS(l, "", "") }()
	if s.opts.Socket != "" {
		local, err := listenLocal(ctx, s.opts.Socket)
		if err != nil {
			return err
		}
		private := s.localServer(streams)
		servers = append(servers, private)
		go func() { failed <- private.Serve(local) }()
	}
	if err := s.announce(ctx, l.Addr().String()); err != nil {
		return err
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	endStreams()
	shutdown(ctx, servers)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// announceNearby tells the local network where this server is.
func (s *Server) announceNearby(ctx context.Context) {
	if !s.opts.Announce {
		return
	}
	lan.Announce(ctx, lan.Announcement{
		Server: s.member.ID().String(), Fingerprint: sha256.Sum256(s.root.Raw), Pin: sha256.Sum256(s.root.RawSubjectPublicKeyInfo), Addresses: s.opts.Advertise, Version: s.opts.Version,
	}, s.opts.Clock, s.log)
}

// announce tells whoever started the server that it serves.
func (s *Server) announce(ctx context.Context, addr string) error {
	info := Info{Address: addr, Fingerprint: s.fingerprint}
	if s.opts.SetupToken {
		var err error
		if info.SetupToken, err = s.control.NewSetupToken(ctx); err != nil {
			return err
		}
	}
	if s.opts.Ready != nil {
		s.opts.Ready(info)
	}
	return nil
}

// shutdown lets requests under way finish, for a while.
func shutdown(ctx context.Context, servers []*http.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for _, h := range servers {
		if err := h.Shutdown(ctx); err != nil {
			_ = h.Close()
		}
	}
}

// logEnd tells why a loop ended before it was asked to.
func (s *Server) logEnd(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		s.log.Error("a part of the server ended", "part", what, "err", err)
	}
}

// ready tells whether the server can work.
func (s *Server) ready(ctx context.Context) error {
	if s.life.Err() != nil {
		return errs.New(errs.DBUnavailable, "the server stops")
	}
	if !s.member.Valid() {
		return errs.New(errs.DBUnavailable, "the server's lease has run out: the database is away or slow")
	}
	if err := s.pool.Ping(ctx); err != nil {
		return errs.New(errs.DBUnavailable, "the database does not answer").Because(err)
	}
	return nil
}
