// Package storage holds the rules of storage pools: places for disks that several nodes
// have.
package storage

import (
	"strings"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// SharedDirectory is the kind of a folder that several nodes have.
const SharedDirectory = "shared_directory"

// Pool is a place for disks as the control plane knows it.
type Pool struct {
	ID   id.ID
	Name string
	Kind string
	// CapacityBytes of its file system; UsedBytes is what disks on record may take of it.
	CapacityBytes, UsedBytes int64
	// Nodes that report it, by name.
	Nodes []On
	// Volumes that are in it, by VM and slot.
	Volumes   []Volume
	Revision  gen.Revision
	CreatedAt time.Time
	UpdatedAt time.Time
}

// On is a pool as one node has it.
type On struct {
	Node     id.ID
	NodeName string
	// Name that the node has for it.
	Name string
	// TotalBytes and FreeBytes of the file system.
	TotalBytes, FreeBytes int64
	// Why it cannot be used there; empty when it can.
	Why    string
	SeenAt time.Time
}

// Volume is a disk that is in a pool.
type Volume struct {
	ID        id.ID
	VM        id.ID
	VMName    string
	Slot      int
	SizeBytes int64
}

// Delete tells whether a pool may be forgotten: no disk is in it, and no node has it.
func (p Pool) Delete() error {
	if n := len(p.Volumes); n > 0 {
		return errs.New(errs.InUse, "storage pool %q has %d disks, the first of VM %q: delete or move them first", p.Name, n, p.Volumes[0].VMName)
	}
	if len(p.Nodes) > 0 {
		names := make([]string, len(p.Nodes))
		for i, n := range p.Nodes {
			names[i] = n.NodeName
		}
		return errs.New(errs.InUse, "storage pool %q is reported by %s: take it out of their configuration (agent --pool) first", p.Name, strings.Join(names, ", "))
	}
	return nil
}
