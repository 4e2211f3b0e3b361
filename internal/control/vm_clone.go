package control

import (
	"context"
	"maps"
	"strings"

	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/scheduler"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// CloneVM makes a VM of another name from one that rests, on the same node: the
// same size, copies of its disks, interfaces with addresses of their own. Ports
// of the node are not forwarded to it, since they are the original's. Nil labels
// are those of the original.
func (s *Service) CloneVM(ctx context.Context, c Caller, ref, name string, labels map[string]string) (Accepted, error) {
	if err := (vm.Change{Name: &name, Labels: &labels}).Validate(); err != nil {
		return Accepted{}, err
	}
	return s.once(ctx, c, func(tx *store.Tx) (Accepted, error) {
		source, err := s.decided(ctx, tx, c, ref, vm.Clone)
		if err != nil {
			return Accepted{}, err
		}
		if source.Intent.NodeID == nil {
			return Accepted{}, errs.New(errs.InvalidState, "VM %q is on no node yet", source.Intent.Name)
		}
		v, p := cloneOf(source, name, labels)
		if err := s.giveMACs(ctx, tx, v.NICs); err != nil {
			return Accepted{}, err
		}
		job := id.New()
		if err := tx.VMInsert(ctx, v, job); err != nil {
			return Accepted{}, err
		}
		if err := settle(ctx, tx, v, source); err != nil {
			return Accepted{}, err
		}
		if _, err := tx.VMHold(ctx, source.Intent, job); err != nil {
			return Accepted{}, err
		}
		_, err = s.beginWith(ctx, tx, c, v, workflow.NewJob{
			ID: job, Kind: vm.JobClone, OpSeq: 1, Cancellable: true, Params: p,
		}, map[string]any{"source": source.Intent.ID, "source_name": source.Intent.Name})
		return Accepted{Job: &job, Object: v.Intent.ID}, err
	})
}

// cloneOf makes the clone's intent with fresh ids for everything it has; its interfaces
// have no addresses yet.
func cloneOf(source vm.View, name string, labels map[string]string) (vm.View, flows.CloneParams) {
	from := source.Intent
	p := flows.CloneParams{Source: from.ID, Volumes: map[id.ID]id.ID{}}
	v := vm.View{Intent: vm.Intent{
		ID: id.New(), ProjectID: from.ProjectID, Name: name, Labels: labels,
		CPUs: from.CPUs, MemoryBytes: from.MemoryBytes, Hardware: from.Hardware, ImageID: from.ImageID, ImageName: from.ImageName, Limits: from.Limits,
	}}
	v.Intent.CloudInit, v.Intent.SeedImage = from.CloudInit.For(name), from.SeedImage
	v.Intent.CDROM = from.CDROM
	if labels == nil {
		v.Intent.Labels = maps.Clone(from.Labels)
	}
	for _, d := range source.Volumes {
		fresh := d
		fresh.ID = id.New()
		p.Volumes[fresh.ID] = d.ID
		v.Volumes = append(v.Volumes, fresh)
	}
	for _, n := range source.NICs {
		v.NICs = append(v.NICs, vm.NIC{ID: id.New(), Slot: n.Slot, Bridge: n.Bridge})
	}
	return v, p
}

// settle puts a clone on its original's node, or says what the node lacks.
func settle(ctx context.Context, tx *store.Tx, v, source vm.View) error {
	n, err := tx.NodeGet(ctx, source.Intent.NodeID.String())
	if err != nil {
		return err
	}
	why := scheduler.Room(n, scheduler.Request{DiskBytes: v.DiskBytes()})
	if n.State == node.Cordoned {
		why = append(why, "is cordoned and takes no new VMs")
	}
	if len(why) == 0 {
		ok, err := tx.VMSettle(ctx, v, n.ID)
		if ok || err != nil {
			return err
		}
		why = append(why, "has no room left")
	}
	return errs.New(errs.NoNodeFits, "a clone is made where the disks of VM %q are, and node %s %s", source.Intent.Name, n.Name, strings.Join(why, " and "))
}
