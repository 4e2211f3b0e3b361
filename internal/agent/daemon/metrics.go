package daemon

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	std "github.com/prometheus/client_golang/prometheus/collectors"

	volume "github.com/novacron/novacron/internal/driver/volume/contract"
)

// collectors are the node's metrics beside the agent's own. Those of the process
// are told only where the process is one node's.
func collectors(who *identity, d drivers) []prometheus.Collector {
	out := []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "novacron_agent_certificate_expires_seconds", Help: "When the node's certificate ends, in seconds since 1970. It renews at two thirds of its life.",
		}, func() float64 { return float64(who.certificate().NotAfter.Unix()) }),
		&storage{d.volumes},
	}
	if !d.volatile {
		out = append(out, std.NewGoCollector(), std.NewProcessCollector(std.ProcessCollectorOpts{}))
	}
	return out
}

// storage tells how full the place of the volumes is.
type storage struct{ volumes volume.Driver }

var (
	storageDesc = prometheus.NewDesc("novacron_agent_storage_bytes", "Capacity of the place where volumes lie.", nil, nil)
	freeDesc    = prometheus.NewDesc("novacron_agent_storage_free_bytes", "Free bytes of the place where volumes lie.", nil, nil)
)

// usageTakes bounds the look at a disk that may hang.
const usageTakes = 2 * time.Second

// Describe implements prometheus.Collector.
func (s *storage) Describe(ch chan<- *prometheus.Desc) {
	ch <- storageDesc
	ch <- freeDesc
}

// Collect implements prometheus.Collector.
func (s *storage) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), usageTakes)
	defer cancel()
	u, err := s.volumes.Usage(ctx)
	if err != nil {
		return // the agent answers all the same; what is missing is seen
	}
	ch <- prometheus.MustNewConstMetric(storageDesc, prometheus.GaugeValue, float64(u.TotalBytes))
	ch <- prometheus.MustNewConstMetric(freeDesc, prometheus.GaugeValue, float64(u.FreeBytes))
}
