package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// populate records stopped VMs spread over the nodes, as if each had been created
// without a disk: thousands by the API would take minutes and measure nothing.
func (i *instance) populate(vms int) {
	i.t.Helper()
	i.sql(fmt.Sprintf(`
WITH n AS (SELECT id, row_number() OVER (ORDER BY name) - 1 AS k, count(*) OVER () AS of FROM nodes WHERE state = 'active')
INSERT INTO vms (id, project_id, name, cpus, memory_bytes, image_id, node_id)
SELECT gen_random_uuid(), (SELECT id FROM projects ORDER BY created_at LIMIT 1), 'vm-' || lpad(g::text, 5, '0'), 1, 64 << 20, (SELECT id FROM images WHERE name = 'sliver'), n.id
FROM generate_series(0, %d) g JOIN n ON n.k = g %% n.of;
ANALYZE vms;`, vms-1))
}

// importSliver imports the smallest kernel there can be: simulated nodes each keep
// a copy of it, and what is measured is not how fast copies are made.
func (i *instance) importSliver() {
	i.t.Helper()
	kernel := make([]byte, 1024)
	copy(kernel[0x202:], "HdrS")
	dir := i.t.TempDir()
	for file, content := range map[string][]byte{"kernel": kernel, "initrd": []byte("070701")} {
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
			i.t.Fatal(err)
		}
	}
	i.must("image", "import", "sliver", "--kernel", filepath.Join(dir, "kernel"), "--initrd", filepath.Join(dir, "initrd"))
}

// sql runs statements on the instance's database.
func (i *instance) sql(text string) string {
	i.t.Helper()
	out, err := i.runIn(strings.NewReader(text), "db", "psql", "--", "-qAt", "-v", "ON_ERROR_STOP=1")
	if err != nil {
		i.t.Fatalf("psql: %v\n%s", err, out)
	}
	return strings.TrimSpace(out)
}

// cpuOf is the processor time a child of the instance has used.
func (i *instance) cpuOf(child string) time.Duration {
	i.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", i.state().Children[child].PID))
	if err != nil {
		i.t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond // ticks of 1/100 s
}

// cpuOfDatabase is what PostgreSQL's processes have used.
func (i *instance) cpuOfDatabase() time.Duration {
	i.t.Helper()
	master := i.state().Children["postgres"].PID
	var sum time.Duration
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, p := range all {
		b, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
		if f[1] != strconv.Itoa(master) {
			continue
		}
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		sum += time.Duration(user+system) * 10 * time.Millisecond
	}
	return sum
}

func BenchmarkScale(b *testing.B) {
	nodes, vms, starts := 1000, 20000, 4000
	if s := os.Getenv("NOVACRON_E2E_SCALE"); s != "" {
		if _, err := fmt.Sscanf(s, "%d,%d,%d", &nodes, &vms, &starts); err != nil {
			b.Fatal(err)
		}
	}
	i := up(b, "--sim", fmt.Sprint(nodes))
	i.eventually("all nodes joined", func() (bool, string) {
		n := i.sql("SELECT count(*) FROM nodes WHERE seen_at > now() - interval '20 s'")
		return n == fmt.Sprint(nodes), n
	})
	i.importSliver()
	i.populate(vms)
	c, err := client.New(client.Config{Socket: i.state().Summary.Socket})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	// idle
	was, at := i.cpuOf("server"), clock.System{}.Boot()
	_ = clock.System{}.Sleep(b.Context(), 10*time.Second)
	b.ReportMetric(float64(i.cpuOf("server")-was)/float64(clock.System{}.Boot()-at), "cores/idle")

	var pages []time.Duration
	for range 50 {
		at := clock.System{}.Boot()
		if _, err := c.VMs.List(b.Context(), client.ListOptions{Limit: 100}); err != nil {
			b.Fatal(err)
		}
		pages = append(pages, clock.System{}.Boot()-at)
	}
	b.ReportMetric(float64(median(pages).Microseconds())/1000, "ms/page")
	for b.Loop() {
		cpu := map[string]time.Duration{"server": i.cpuOf("server"), "sim": i.cpuOf("sim"), "pg": i.cpuOfDatabase()}
		at := clock.System{}.Boot()
		startAll(b, c, starts)
		asked := clock.System{}.Boot() - at
		i.eventually("all run", func() (bool, string) {
			n := i.sql("SELECT count(*) FROM jobs WHERE state = 'succeeded' AND kind='vm.start'")
			return n == fmt.Sprint(starts), n
		})
		took := clock.System{}.Boot() - at
		for k, was := range cpu {
			now := i.cpuOfDatabase()
			if k != "pg" {
				now = i.cpuOf(k)
			}
			b.ReportMetric(float64((now-was).Microseconds())/1000/float64(starts), "ms-"+k+"/start")
		}
		b.ReportMetric(float64(starts)/asked.Seconds(), "asked/s")
		b.ReportMetric(float64(starts)/took.Seconds(), "starts/s")
	}
}

func median(d []time.Duration) time.Duration {
	s := append([]time.Duration(nil), d...)
	for i := range s {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
	return s[len(s)/2]
}

func startAll(b *testing.B, c *client.Client, n int) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for k := int(next.Add(1)) - 1; k < n; k = int(next.Add(1)) - 1 {
				if _, err := c.VMs.Start(context.Background(), fmt.Sprintf("vm-%05d", k)); err != nil {
					b.Errorf("start %d: %v", k, err)
				}
			}
		})
	}
	wg.Wait()
}

var _ = api.VM{}
