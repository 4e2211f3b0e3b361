package controltest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/novacron/novacron/internal/domain/vm"
	volume "github.com/novacron/novacron/internal/driver/volume/contract"
	"github.com/novacron/novacron/internal/driver/volume/pool"
	volumesim "github.com/novacron/novacron/internal/driver/volume/sim"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// SharedPool is the name of the pool of NewSharing.
const SharedPool = "shared"

// NewSharing makes a cluster of n simulated nodes that have a storage pool in common, with
// the second disk of each new VM in it.
func NewSharing(tb testing.TB, n int) *Cluster {
	tb.Helper()
	return newOn(tb, n, tinyImage, newSimHost, tb.TempDir())
}

// Shared is the folder of the pool.
func (c *Cluster) Shared() string { return c.shared }

// Disk gives a disk of a VM as a node has it, or the pool that it is in.
func (n *Node) Disk(ctx context.Context, d vm.Volume) (volume.Volume, error) {
	if d.PoolID == nil {
		return n.Host.Volumes().Inspect(ctx, d.ID)
	}
	in, err := openShared(filepath.Join(n.cluster.shared, "volumes"))
	if err != nil {
		return volume.Volume{}, err
	}
	return in.Inspect(ctx, d.ID)
}

func openShared(folder string) (volume.Driver, error) { return volumesim.Open(folder, unit.TiB) }

// Claim reads who may write a disk that is in the pool; nil for nobody yet.
func (c *Cluster) Claim(disk id.ID) (*pool.Claim, error) {
	b, err := os.ReadFile(filepath.Join(c.shared, "claims", disk.String()+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	now := new(pool.Claim)
	if err == nil {
		err = json.Unmarshal(b, now)
	}
	return now, err
}

// pools are the storage pools of a node, as of its present boot.
func (n *Node) pools() []*pool.Pool {
	if n.cluster.shared == "" {
		return nil
	}
	return []*pool.Pool{pool.New(pool.Options{
		Name: SharedPool, Path: n.cluster.shared, Remember: filepath.Join(n.dir, "pool.json"), Node: n.ID, Boot: fmt.Sprint("boot ", n.boots),
		Open: openShared, Clock: clock.System{},
	})}
}

// sharedVM has the second disk in the pool.
func (c *Cluster) sharedVM(disks []vm.DiskSpec) []vm.DiskSpec {
	if c.shared != "" {
		disks[1].Pool = SharedPool
	}
	return disks
}

// leftShared lists what the pool holds for VMs that are gone.
func (c *Cluster) leftShared(views []vm.View) (out []string) {
	if c.shared == "" {
		return nil
	}
	mine := map[string]bool{}
	for _, v := range views {
		for _, d := range v.Volumes {
			mine[d.ID.String()] = mine[d.ID.String()] || d.PoolID != nil
		}
	}
	for _, dir := range []string{"volumes", "claims"} {
		entries, err := os.ReadDir(filepath.Join(c.shared, dir))
		if err != nil {
			out = append(out, err.Error())
		}
		for _, e := range entries {
			if !mentions(e.Name(), mine) {
				out = append(out, "pool: "+dir+"/"+e.Name())
			}
		}
	}
	return out
}
