package server

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// How agents are asked for their metrics: several at once, and none for long.
const (
	nodesAtOnce    = 32
	nodeAnswers    = 5 * time.Second
	nodesPerPage   = 500
	nodeLabel      = "node"
	nodeUp         = "novacron_node_up"
	metricsFromAll = 20 * time.Second
)

// serveNodeMetrics asks every agent that has a session here and adds the node's
// name to what each says. A node that does not answer is told by novacron_node_up.
func (s *Server) serveNodeMetrics(w http.ResponseWriter, r *Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), metricsFromAll)
	defer cancel()
	nodes, err := s.nodeNames(ctx)
	if err != nil {
		return err
	}
	all := newFamilies()
	var wg sync.WaitGroup
	slots := make(chan struct{}, nodesAtOnce)
	for _, n := range nodes {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			all.add(n.name, s.askNode(ctx, n))
		})
	}
	wg.Wait()
	promhttp.HandlerFor(all, promhttp.HandlerOpts{}).ServeHTTP(w, r.Request)
	return nil
}

func (s *Server) askNode(ctx context.Context, n namedNode) map[string]*dto.MetricFamily {
	ctx, cancel := context.WithTimeout(ctx, nodeAnswers)
	defer cancel()
	var reply nodelink.MetricsReply
	err := s.agents.Call(ctx, n.id, &nodelink.Metrics{}, &reply)
	if errs.Is(err, errs.Unsupported) {
		return map[string]*dto.MetricFamily{} // an older agent, which is up and has none
	}
	if err != nil {
		return nil
	}
	p := expfmt.NewTextParser(model.LegacyValidation)
	got, err := p.TextToMetricFamilies(bytes.NewReader([]byte(reply.Text)))
	if err != nil {
		s.log.Warn("a node's metrics are not understood", "node", n.name, "err", err)
		return nil
	}
	return got
}

type namedNode struct {
	id   id.ID
	name string
}

// nodeNames lists the cluster's nodes.
func (s *Server) nodeNames(ctx context.Context) ([]namedNode, error) {
	var out []namedNode
	page := store.Page{Limit: nodesPerPage}
	for {
		nodes, next, err := s.control.Nodes(ctx, page)
		if err != nil {
			return nil, err
		}
		for _, n := range nodes {
			out = append(out, namedNode{n.ID, n.Name})
		}
		if next == nil {
			return out, nil
		}
		page.AfterKey, page.AfterID = next.Key, &next.ID
	}
}

// families gathers what nodes said under one roof.
type families struct {
	mu sync.Mutex
	by map[string]*dto.MetricFamily
}

var _ prometheus.Gatherer = (*families)(nil)

func newFamilies() *families { return &families{by: map[string]*dto.MetricFamily{}} }

// add takes in what a node said; nil is a node that said nothing. A compromised
// agent cannot speak for another node: the label is ours, and stands for whatever
// the agent has under that name.
func (f *families) add(node string, said map[string]*dto.MetricFamily) {
	f.mu.Lock()
	defer f.mu.Unlock()
	up := 0.0
	if said != nil {
		up = 1
	}
	kind := dto.MetricType_GAUGE
	name, help := nodeUp, "1 when the node's agent answers this server."
	f.merge(node, &dto.MetricFamily{Name: &name, Help: &help, Type: &kind, Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: &up}}}})
	for name, fam := range said {
		if name != nodeUp {
			f.merge(node, fam)
		}
	}
}

func (f *families) merge(node string, fam *dto.MetricFamily) {
	have := f.by[fam.GetName()]
	if have == nil {
		have = &dto.MetricFamily{Name: fam.Name, Help: fam.Help, Type: fam.Type}
		f.by[fam.GetName()] = have
	}
	if have.GetType() != fam.GetType() {
		return // an agent of another version means something else by this name
	}
	label := nodeLabel
	for _, m := range fam.Metric {
		m.Label = slices.DeleteFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetName() == nodeLabel })
		m.Label = append(m.Label, &dto.LabelPair{Name: &label, Value: &node})
		slices.SortFunc(m.Label, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
		have.Metric = append(have.Metric, m)
	}
}

// Gather implements prometheus.Gatherer.
func (f *families) Gather() ([]*dto.MetricFamily, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]*dto.MetricFamily, 0, len(f.by))
	for _, fam := range f.by {
		out = append(out, fam)
	}
	slices.SortFunc(out, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out, nil
}
