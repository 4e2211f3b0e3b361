package pool

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Claim says who may write a volume.
type Claim struct {
	Volume id.ID          `json:"volume"`
	VM     id.ID          `json:"vm"`
	Epoch  gen.OwnerEpoch `json:"owner_epoch"`
	Node   id.ID          `json:"node"`
	Boot   string         `json:"boot"`
	// Held: may it be open for writing? False once it was released.
	Held bool `json:"held"`
}

// Claims are those of a pool's volumes, as one node takes them.
type Claims struct {
	dir   string
	node  id.ID
	boot  string
	clock clock.Clock
}

// Take lets this node write a volume under an epoch. errs.StaleEpoch when the claim has a
// higher one, or another node has the same; errs.InUse when another node has a lower one
// and has not released it. This node's own is taken again, whatever boot it is of: the
// caller knows its processes. Twice is no error.
func (c *Claims) Take(volume, vm id.ID, epoch gen.OwnerEpoch) error {
	return c.take(volume, vm, epoch, false)
}

// TakeOver is Take past a node that has not released a lower epoch. The caller knows, by
// a change of owner, that it will write no more.
func (c *Claims) TakeOver(volume, vm id.ID, epoch gen.OwnerEpoch) error {
	return c.take(volume, vm, epoch, true)
}

func (c *Claims) take(volume, vm id.ID, epoch gen.OwnerEpoch, over bool) error {
	return c.change(volume, func(now *Claim) (*Claim, error) {
		if now != nil {
			if err := c.refuse(*now, vm, epoch, over); err != nil {
				return nil, err
			}
		}
		return &Claim{Volume: volume, VM: vm, Epoch: epoch, Node: c.node, Boot: c.boot, Held: true}, nil
	})
}

// refuse tells why a claim that is there does not let this node have the volume.
func (c *Claims) refuse(now Claim, vm id.ID, epoch gen.OwnerEpoch, over bool) error {
	mine := now.Node == c.node
	switch {
	case now.VM != vm:
		return errs.New(errs.InUse, "volume %s is another VM's, %s", now.Volume, now.VM)
	case now.Epoch > epoch:
		return errs.New(errs.StaleEpoch, "volume %s is owned under epoch %d; this node has %d and does not open it", now.Volume, now.Epoch, epoch)
	case now.Epoch == epoch && !mine:
		return errs.New(errs.StaleEpoch, "volume %s is owned under epoch %d by node %s, and not by this one", now.Volume, epoch, now.Node)
	case now.Held && !mine && !over:
		return errs.New(errs.InUse, "volume %s may still be written by node %s, which has not let it go", now.Volume, now.Node)
	}
	return nil
}

// Check tells whether this node still has a volume under an epoch: nil, or
// errs.StaleEpoch.
func (c *Claims) Check(volume id.ID, epoch gen.OwnerEpoch) error {
	return c.change(volume, func(now *Claim) (*Claim, error) {
		if now == nil || now.Node != c.node || now.Epoch != epoch || !now.Held {
			return nil, errs.New(errs.StaleEpoch, "volume %s is not this node's under epoch %d any more", volume, epoch)
		}
		return now, nil
	})
}

// Release tells that this node has a volume of an epoch up to this one open no more. The
// epoch stays. What is not this node's is left as it is.
func (c *Claims) Release(volume id.ID, epoch gen.OwnerEpoch) error {
	return c.change(volume, func(now *Claim) (*Claim, error) {
		if now == nil || now.Node != c.node || now.Epoch > epoch {
			return now, nil
		}
		freed := *now
		freed.Held = false
		return &freed, nil
	})
}

// Forget removes the claim of a volume that is removed. errs.InUse when another node has
// it, and errs.StaleEpoch when it was claimed under a later epoch: then the volume is not
// this node's to remove. over is as with TakeOver.
func (c *Claims) Forget(volume id.ID, epoch gen.OwnerEpoch, over bool) error {
	err := c.change(volume, func(now *Claim) (*Claim, error) {
		if now == nil {
			return nil, nil
		}
		return nil, c.refuse(*now, now.VM, max(epoch, 0), over)
	})
	if err != nil {
		return err
	}
	if err := os.Remove(c.path(volume) + guardSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed(volume, err)
	}
	return nil
}

// Read gives the claim of a volume; nil when there is none.
func (c *Claims) Read(volume id.ID) (*Claim, error) {
	now, err := c.read(volume)
	if err != nil {
		return nil, failed(volume, err)
	}
	return now, nil
}

const (
	claimSuffix = ".json"
	guardSuffix = ".guard"
)

func (c *Claims) path(volume id.ID) string { return filepath.Join(c.dir, volume.String()) }

// change replaces the claim of a volume by what f makes of it, with every other node kept
// out. f answers with the claim as it is for no change, and with none for its removal.
func (c *Claims) change(volume id.ID, f func(*Claim) (*Claim, error)) error {
	guard, err := durable.Lock(c.path(volume)+guardSuffix, c.clock)
	if err != nil {
		return failed(volume, err)
	}
	defer func() { _ = guard.Close() }()
	now, err := c.read(volume)
	if err != nil {
		return failed(volume, err)
	}
	next, err := f(now)
	if err != nil || next == now {
		return err
	}
	if next == nil {
		err = os.Remove(c.path(volume) + claimSuffix)
		if err == nil {
			err = durable.SyncFolder(c.path(volume))
		}
	} else {
		err = c.write(*next)
	}
	if err != nil {
		return failed(volume, err)
	}
	return nil
}

// write replaces a claim, and reads it again: where the lock did not keep another node out
// after all, the last one to write has it, and the other sees that.
func (c *Claims) write(next Claim) error {
	b, err := json.Marshal(next)
	if err == nil {
		err = durable.Replace(c.path(next.Volume)+claimSuffix, b, true)
	}
	if err != nil {
		return err
	}
	now, err := c.read(next.Volume)
	if err == nil && (now == nil || *now != next) {
		err = errors.New("it was changed at the same time by another node: do the locks of this file system hold between hosts?")
	}
	return err
}

func (c *Claims) read(volume id.ID) (*Claim, error) {
	b, err := os.ReadFile(c.path(volume) + claimSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	now := new(Claim)
	if err := json.Unmarshal(b, now); err != nil {
		return nil, err
	}
	if now.Volume != volume {
		return nil, errors.New("it is of another volume")
	}
	return now, nil
}

func failed(volume id.ID, err error) error {
	if errors.Is(err, durable.ErrLocked) {
		return errs.New(errs.InUse, "who may write volume %s is being changed by another node", volume).Because(err)
	}
	return errs.New(errs.HostFailure, "who may write volume %s cannot be told", volume).Because(err)
}
