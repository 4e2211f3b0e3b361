package daemon

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	std "github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/novacron/novacron/internal/agent"
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
	if c, ok := d.images.(*agent.Cache); ok {
		out = append(out, &imageCache{c})
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

// imageCache tells how the node's cache of image files stands.
type imageCache struct{ cache *agent.Cache }

var (
	cacheBytesDesc   = prometheus.NewDesc("novacron_agent_image_cache_bytes", "What image files take on this node, those that VMs stand on included.", nil, nil)
	cacheLimitDesc   = prometheus.NewDesc("novacron_agent_image_cache_limit_bytes", "Above this, files that no VM stands on are evicted, least recently used first.", nil, nil)
	cacheFilesDesc   = prometheus.NewDesc("novacron_agent_image_cache_files", "Image files on this node.", nil, nil)
	cacheDamagedDesc = prometheus.NewDesc("novacron_agent_image_cache_damaged_files", "Image files on this node that are damaged; each is fetched again before its next use.", nil, nil)
	cacheUsesDesc    = prometheus.NewDesc("novacron_agent_image_cache_uses_total", "Image files asked for, by whether they were there or had to be fetched.", []string{"how"}, nil)
	cacheEvictedDesc = prometheus.NewDesc("novacron_agent_image_cache_evicted_total", "Image files evicted.", nil, nil)
)

// Describe implements prometheus.Collector.
func (i *imageCache) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{cacheBytesDesc, cacheLimitDesc, cacheFilesDesc, cacheDamagedDesc, cacheUsesDesc, cacheEvictedDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (i *imageCache) Collect(ch chan<- prometheus.Metric) {
	s := i.cache.Status()
	for d, v := range map[*prometheus.Desc]int64{
		cacheBytesDesc: s.Bytes, cacheLimitDesc: s.Limit, cacheFilesDesc: int64(s.Files), cacheDamagedDesc: int64(s.Damaged),
	} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	ch <- prometheus.MustNewConstMetric(cacheEvictedDesc, prometheus.CounterValue, float64(s.Counts.Evicted))
	ch <- prometheus.MustNewConstMetric(cacheUsesDesc, prometheus.CounterValue, float64(s.Counts.Hits), "hit")
	ch <- prometheus.MustNewConstMetric(cacheUsesDesc, prometheus.CounterValue, float64(s.Counts.Fetched), "fetched")
}
