package server

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	dto "github.com/prometheus/client_model/go"

	"github.com/novacron/novacron/internal/store/storetest"
)

// scrape reads a page of metrics as Prometheus would.
func (r *running) scrape(path string) map[string]*dto.MetricFamily {
	r.t.Helper()
	status, b := r.raw("GET", path, nil)
	if status != http.StatusOK {
		r.t.Fatalf("%s: %d %s", path, status, b)
	}
	p := expfmt.NewTextParser(model.LegacyValidation)
	out, err := p.TextToMetricFamilies(strings.NewReader(string(b)))
	if err != nil {
		r.t.Fatalf("%s: %v", path, err)
	}
	return out
}

// value finds one sample by its labels; -1 when there is none.
func value(fams map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	for _, m := range fams[name].GetMetric() {
		have := map[string]string{}
		for _, l := range m.Label {
			have[l.GetName()] = l.GetValue()
		}
		same := true
		for i := 0; i+1 < len(labels); i += 2 {
			same = same && have[labels[i]] == labels[i+1]
		}
		switch {
		case !same:
		case m.Gauge != nil:
			return m.Gauge.GetValue()
		case m.Counter != nil:
			return m.Counter.GetValue()
		case m.Histogram != nil:
			return float64(m.Histogram.GetSampleCount())
		}
	}
	return -1
}

// The server tells of itself, of the cluster, and of its nodes.
func TestMetrics(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	r.nodes(2)
	r.image("tiny")
	if status, b := r.raw("POST", "/api/v1/vms?wait=20s", newVM("web")); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, b)
	}
	r.until("a VM runs in the figures", 20*time.Second, func() bool {
		m := r.scrape("/metrics")
		return value(m, "novacron_vms", "state", "running") == 1 && value(m, "novacron_nodes", "state", "ready") == 2
	})
	m := r.scrape("/metrics")
	for _, want := range []struct {
		name   string
		labels []string
	}{
		{"novacron_http_request_duration_seconds", []string{"route", "createVM", "status", "202"}},
		{"novacron_build_info", []string{"version", "test"}},
		{"novacron_node_sessions", nil},
		{"novacron_server_lease_valid", nil},
		{"novacron_db_connections_max", nil},
		{"go_goroutines", nil},
	} {
		if got := value(m, want.name, want.labels...); got <= 0 {
			t.Errorf("%s %v is %v", want.name, want.labels, got)
		}
	}

	nodes := r.scrape("/metrics/nodes")
	launches := max(value(nodes, "novacron_agent_command_duration_seconds", "command", "launch", "code", "ok", "node", "sim-0001"), 0) +
		max(value(nodes, "novacron_agent_command_duration_seconds", "command", "launch", "code", "ok", "node", "sim-0002"), 0)
	if launches != 1 {
		t.Errorf("%v launches", launches)
	}
	for _, n := range []string{"sim-0001", "sim-0002"} {
		if value(nodes, "novacron_node_up", "node", n) != 1 || value(nodes, "novacron_agent_storage_bytes", "node", n) <= 0 ||
			value(nodes, "novacron_agent_certificate_expires_seconds", "node", n) < float64(time.Now().Unix()) {
			t.Errorf("%s: %v", n, nodes)
		}
	}
}

// A node cannot speak for another one, nor say that it is up, nor change what a
// metric is.
func TestNodesSpeakForThemselves(t *testing.T) {
	parse := func(text string) map[string]*dto.MetricFamily {
		p := expfmt.NewTextParser(model.LegacyValidation)
		out, err := p.TextToMetricFamilies(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	f := newFamilies()
	f.add("good", parse("# TYPE a gauge\na 1\n"))
	f.add("bad", parse("# TYPE a gauge\na{node=\"good\"} 2\n# TYPE novacron_node_up gauge\nnovacron_node_up{node=\"away\"} 1\n# TYPE b gauge\nb 1\n"))
	f.add("odd", parse("# TYPE a counter\na 3\n"))
	f.add("away", nil)
	all, err := f.Gather()
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]*dto.MetricFamily{}
	for _, fam := range all {
		by[fam.GetName()] = fam
	}
	for _, c := range []struct {
		name, node string
		want       float64
	}{
		{"a", "good", 1},
		{"a", "bad", 2},
		{"a", "odd", -1},
		{"b", "bad", 1},
		{"novacron_node_up", "good", 1},
		{"novacron_node_up", "bad", 1},
		{"novacron_node_up", "away", 0},
	} {
		if got := value(by, c.name, "node", c.node); got != c.want {
			t.Errorf("%s of %s is %v, want %v", c.name, c.node, got, c.want)
		}
	}
}
