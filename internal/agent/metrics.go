package agent

import (
	"bytes"
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// meter holds the agent's own metrics. Servers ask for them over the node link
// and serve them with the node's name: an agent opens no port.
type meter struct {
	registry *prometheus.Registry
	clock    clock.Clock
	commands *prometheus.HistogramVec
}

// commandBuckets are seconds: a command that only looks takes none, a launch a
// fraction of one, an image minutes.
var commandBuckets = []float64{.001, .005, .025, .1, .25, 1, 5, 30, 300}

func newMeter(a *Agent) *meter {
	m := &meter{
		registry: prometheus.NewRegistry(), clock: a.cfg.Clock,
		commands: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "novacron_agent_command_duration_seconds", Help: "Time to carry out commands, by command and outcome.", Buckets: commandBuckets,
		}, []string{"command", "code"}),
	}
	m.registry.MustRegister(m.commands, &guestCounts{a})
	for _, c := range a.cfg.Collectors {
		m.registry.MustRegister(c)
	}
	return m
}

// carried notes how a command went.
func (m *meter) carried(method string, began time.Duration, err error) {
	code := "ok"
	if err != nil {
		code = string(errs.CodeOf(err))
	}
	m.commands.WithLabelValues(method, code).Observe((m.clock.Boot() - began).Seconds())
}

// guestCounts counts what the agent knows when somebody asks.
type guestCounts struct{ agent *Agent }

var (
	guestsDesc = prometheus.NewDesc("novacron_agent_guests", "Guests of this node, by the phase last reported.", []string{"phase"}, nil)
	unsentDesc = prometheus.NewDesc("novacron_agent_reports_unsent", "Reports that no server has taken yet.", nil, nil)
)

// Describe implements prometheus.Collector.
func (g *guestCounts) Describe(ch chan<- *prometheus.Desc) {
	ch <- guestsDesc
	ch <- unsentDesc
}

// Collect implements prometheus.Collector.
func (g *guestCounts) Collect(ch chan<- prometheus.Metric) {
	phases, unsent := g.agent.reports.count()
	for phase, n := range phases {
		ch <- prometheus.MustNewConstMetric(guestsDesc, prometheus.GaugeValue, float64(n), string(phase))
	}
	ch <- prometheus.MustNewConstMetric(unsentDesc, prometheus.GaugeValue, float64(unsent))
}

// metrics answers a server in Prometheus' text format.
func (a *Agent) metrics(context.Context, Peer, *nodelink.Metrics) (any, error) {
	fams, err := a.meter.registry.Gather()
	if err != nil && len(fams) == 0 {
		return nil, errs.New(errs.Internal, "the agent's metrics cannot be read").Because(err)
	}
	var b bytes.Buffer
	for _, f := range fams {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return nil, errs.New(errs.Internal, "the agent's metrics cannot be written").Because(err)
		}
	}
	return nodelink.MetricsReply{Text: b.String()}, nil
}
