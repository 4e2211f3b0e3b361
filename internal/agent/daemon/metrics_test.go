package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// The figures of the image cache are what the cache did.
func TestImageCacheMetrics(t *testing.T) {
	c, err := agent.OpenCache(t.TempDir(), agent.CacheOptions{Limit: 1000, Clock: clock.NewFake(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("image"))
	f := nodelink.ImageFile{SHA256: hex.EncodeToString(sum[:]), SizeBytes: 5}
	for range 3 {
		err := c.Ensure(t.Context(), f, func(_ context.Context, to io.Writer) error {
			_, err := io.WriteString(to, "image")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(&imageCache{c})
	fams, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range fams {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	want := map[string]float64{
		"novacron_agent_image_cache_bytes": 5, "novacron_agent_image_cache_limit_bytes": 1000, "novacron_agent_image_cache_files": 1,
		"novacron_agent_image_cache_damaged_files": 0, "novacron_agent_image_cache_evicted_total": 0,
		"novacron_agent_image_cache_uses_total fetched": 1, "novacron_agent_image_cache_uses_total hit": 2,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The cache is a tenth of this agent's part of the disk, unless it was said.
func TestImageCacheLimit(t *testing.T) {
	dir := t.TempDir()
	whole, err := cacheLimit(dir, Options{})
	half, err2 := cacheLimit(dir, Options{Share: 2})
	if err != nil || err2 != nil || whole <= 0 || half != whole/2 {
		t.Errorf("%d and %d, %v %v", whole, half, err, err2)
	}
	if said, err := cacheLimit(dir, Options{ImageCacheBytes: 7, Share: 2}); err != nil || said != 7 {
		t.Errorf("%d %v", said, err)
	}
}
