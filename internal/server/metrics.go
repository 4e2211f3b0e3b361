package server

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// meter holds this server's metrics, for Prometheus. Names follow
// https://prometheus.io/docs/practices/naming/.
type meter struct {
	registry *prometheus.Registry
	clock    clock.Clock
	requests *prometheus.HistogramVec
	streams  *prometheus.CounterVec
	refused  *prometheus.CounterVec
}

// requestBuckets are seconds, around the goals of the API: a read in a
// millisecond, a change in ten.
var requestBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5, 30}

func newMeter(clk clock.Clock, version string) *meter {
	m := &meter{
		registry: prometheus.NewRegistry(), clock: clk,
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "novacron_http_request_duration_seconds", Help: "Time to answer requests, by route and status.", Buckets: requestBuckets,
		}, []string{"route", "status"}),
		streams: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "novacron_http_streams_total", Help: "Streams that were served (events, consoles, logs, uploads), by route and status.",
		}, []string{"route", "status"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "novacron_http_refused_total", Help: "Requests that were answered 429, by which limit refused them.",
		}, []string{"limit"}),
	}
	for _, limit := range []string{refusedAccount, refusedAddress, refusedBusy, refusedStreams} {
		m.refused.WithLabelValues(limit)
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "novacron_build_info", Help: "1, with the version as label.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	m.registry.MustRegister(m.requests, m.streams, m.refused, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// measured keeps how a route answered.
type measured struct {
	*bounded
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *measured) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.bounded.WriteHeader(status)
}

// Write implements io.Writer.
func (w *measured) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.bounded.Write(p)
}

// Unwrap lets http.ResponseController through.
func (w *measured) Unwrap() http.ResponseWriter { return w.bounded }

// begin measures one request; the function it gives ends that.
func (m *meter) begin(w *bounded, rt Route) (*measured, func()) {
	out, began := &measured{bounded: w}, m.clock.Boot()
	return out, func() {
		if out.status == 0 {
			out.status = http.StatusOK // an empty answer, or a connection that was taken over
		}
		status := strconv.Itoa(out.status)
		if rt.stream != "" {
			m.streams.WithLabelValues(rt.ID, status).Inc()
			return
		}
		m.requests.WithLabelValues(rt.ID, status).Observe((m.clock.Boot() - began).Seconds())
	}
}

// watch adds what is read when somebody asks.
func (m *meter) watch(s *Server) {
	m.registry.MustRegister(&cluster{server: s}, &poolStats{s.pool})
	gauge := func(name, help string, f func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	gauge("novacron_node_sessions", "Agents that have a session with this server.", func() float64 { return float64(len(s.agents.connected())) })
	gauge("novacron_http_requests_at_work", "Requests of known accounts that are worked on.", func() float64 { n, _ := s.limits.work.Load(); return float64(n) })
	gauge("novacron_http_requests_waiting", "Requests of known accounts that wait for their turn.", func() float64 { _, n := s.limits.work.Load(); return float64(n) })
	gauge("novacron_http_streams_open", "Streams, uploads and waits that are open.", func() float64 { n, _ := s.limits.streams.Load(); return float64(n) })
	gauge("novacron_relays_open", "Connections that are joined between nodes that do not reach each other.", func() float64 { return float64(s.agents.relays.count()) })
	counter := func(name, help string, f func() float64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, f))
	}
	counter("novacron_relayed_bytes_total", "Bytes that were carried between nodes that do not reach each other, in both directions.", func() float64 { return float64(s.agents.relays.carried.Load()) })
	counter("novacron_relays_refused_total", "Connections between nodes that there was no room to join.", func() float64 { return float64(s.agents.relays.refused.Load()) })
	gauge("novacron_recovery_hold", "1 while the whole cluster is in recovery hold.", func() float64 {
		if s.control.Holds().Now().Cause != "" {
			return 1
		}
		return 0
	})
	gauge("novacron_recovery_held_nodes", "Nodes that are in recovery hold by themselves.", func() float64 { return float64(len(s.control.Holds().Now().Nodes)) })
	gauge("novacron_quarantined_nodes", "Nodes that did what no agent does and are not spoken with.", func() float64 { return float64(s.control.Holds().Now().Misbehaved()) })
	gauge("novacron_server_lease_valid", "1 while this server may act.", func() float64 {
		if s.member.Valid() {
			return 1
		}
		return 0
	})
}

// cluster counts objects in the database; every server gives the same figures.
type cluster struct {
	server *Server

	mu   sync.Mutex
	at   time.Duration
	last store.Counts
	err  error
}

// countEvery bounds what being scraped costs the database: counting reads every
// VM.
const (
	countEvery = 10 * time.Second
	countTakes = 5 * time.Second
)

var (
	vmsDesc    = prometheus.NewDesc("novacron_vms", "VMs, by the state they appear in.", []string{"state"}, nil)
	nodesDesc  = prometheus.NewDesc("novacron_nodes", "Nodes, by state.", []string{"state"}, nil)
	jobsDesc   = prometheus.NewDesc("novacron_jobs_open", "Jobs that have not ended, by kind and state.", []string{"kind", "state"}, nil)
	eventsDesc = prometheus.NewDesc("novacron_events_unnumbered", "Events that no reader sees yet.", nil, nil)
	lateDesc   = prometheus.NewDesc("novacron_nodes_certificate_late", "Nodes whose certificate should have been renewed long ago.", nil, nil)
	auditDesc  = prometheus.NewDesc("novacron_audit_unchained", "Audit records that are not chained yet.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *cluster) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{vmsDesc, nodesDesc, jobsDesc, eventsDesc, auditDesc, lateDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *cluster) Collect(ch chan<- prometheus.Metric) {
	n, err := c.counts()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(vmsDesc, err)
		return
	}
	send := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	for state, v := range n.VMs {
		send(vmsDesc, v, state)
	}
	for state, v := range n.Nodes {
		send(nodesDesc, v, state)
	}
	for of, v := range n.Jobs {
		send(jobsDesc, v, of[0], of[1])
	}
	send(eventsDesc, n.UnnumberedEvents)
	send(auditDesc, n.UnnumberedAudit)
	send(lateDesc, n.LateCertificates)
}

func (c *cluster) counts() (store.Counts, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.server.opts.Clock.Boot()
	if c.at != 0 && now-c.at < countEvery {
		return c.last, c.err
	}
	ctx, cancel := context.WithTimeout(c.server.life, countTakes)
	defer cancel()
	c.last, c.err = c.server.control.Count(ctx)
	c.at = now
	return c.last, c.err
}

// poolStats tells how busy the connections to the database are.
type poolStats struct{ pool *pgxpool.Pool }

var (
	poolConns = prometheus.NewDesc("novacron_db_connections", "Connections to the database, by what they do.", []string{"state"}, nil)
	poolMax   = prometheus.NewDesc("novacron_db_connections_max", "Most connections this server opens to the database.", nil, nil)
	poolWait  = prometheus.NewDesc("novacron_db_wait_seconds_total", "Time that was waited for a connection to the database.", nil, nil)
)

// Describe implements prometheus.Collector.
func (p *poolStats) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{poolConns, poolMax, poolWait} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (p *poolStats) Collect(ch chan<- prometheus.Metric) {
	s := p.pool.Stat()
	ch <- prometheus.MustNewConstMetric(poolConns, prometheus.GaugeValue, float64(s.AcquiredConns()), "busy")
	ch <- prometheus.MustNewConstMetric(poolConns, prometheus.GaugeValue, float64(s.IdleConns()), "idle")
	ch <- prometheus.MustNewConstMetric(poolMax, prometheus.GaugeValue, float64(s.MaxConns()))
	ch <- prometheus.MustNewConstMetric(poolWait, prometheus.CounterValue, s.EmptyAcquireWaitTime().Seconds())
}

func (s *Server) metricsRoutes() []Route {
	read := auth.Need{Resource: auth.System, Action: auth.Read}
	return []Route{
		raw(Route{Method: "GET", Path: "/metrics", ID: "getMetrics", Summary: "This server's metrics, and the cluster's figures, for Prometheus", Need: read, stream: "Prometheus text format", vital: true}, s.serveMetrics),
		raw(Route{Method: "GET", Path: "/metrics/nodes", ID: "getNodeMetrics", Summary: "The agents' metrics, each with its node's name as a label, for Prometheus", Need: read, stream: "Prometheus text format", vital: true}, s.serveNodeMetrics),
	}
}

func (s *Server) serveMetrics(w http.ResponseWriter, r *Request) error {
	promhttp.HandlerFor(s.meter.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}).ServeHTTP(w, r.Request)
	return nil
}
