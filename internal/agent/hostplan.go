package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// hostPlan is what the node does by itself when its host starts and shuts down, as
// it was told last. It survives whatever the host does.
type hostPlan struct {
	path string
	sync bool

	mu  sync.Mutex
	now nodelink.HostPlan
	has bool
}

const hostPlanFile = "host-plan.json"

// open reads the plan. One that is damaged is as if there was none: everything that
// ran is started at once, and the control plane tells it anew.
func (p *hostPlan) open(dir string, sync bool, log *slog.Logger) error {
	p.path, p.sync = filepath.Join(dir, hostPlanFile), sync
	b, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return errs.New(errs.HostFailure, "the plan for the start of this host cannot be read").Because(err)
	}
	if err := json.Unmarshal(b, &p.now); err != nil {
		log.Error("the plan for the start of this host is damaged: what ran is started at once", "file", p.path, "err", err)
		p.now = nodelink.HostPlan{}
		return nil
	}
	p.has = true
	return nil
}

// digest tells which plan there is; empty for none.
func (p *hostPlan) digest() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.has {
		return ""
	}
	return p.now.Digest()
}

// of is a VM's place.
func (p *hostPlan) of(v id.ID) nodelink.StartPlan {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.now.VMs {
		if s.VM == v {
			return s
		}
	}
	return nodelink.StartPlan{VM: v}
}

// shutdown is what becomes of guests when the host shuts down.
func (p *hostPlan) shutdown() node.ShutdownPolicy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return node.ShutdownPolicy(p.now.Shutdown)
}

// take replaces the plan, on disk first. Cluster incarnations number anew.
func (p *hostPlan) take(n nodelink.HostPlan) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.has && n.Cluster == p.now.Cluster && n.Seq < p.now.Seq {
		return errs.New(errs.StaleEpoch, "a later plan was taken already")
	}
	b, err := json.Marshal(n)
	if err == nil {
		err = durable.Replace(p.path, b, p.sync)
	}
	if err != nil {
		return errs.New(errs.HostFailure, "the node cannot write the plan for the start of its host; is its disk full?").Because(err)
	}
	p.now, p.has = n, true
	return nil
}

func (a *Agent) takePlan(_ context.Context, _ Peer, c *nodelink.HostPlan) (any, error) {
	if c.Cluster != a.following() {
		return nil, errs.New(errs.StaleEpoch, "the plan comes from another cluster, or from an older copy of this one")
	}
	return nodelink.Done{}, a.plan.take(*c)
}
