package controltest

import (
	"context"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Start makes the node's agent, as its process would, and says hello.
func (n *Node) Start(ctx context.Context) error {
	if err := n.startAgent(ctx); err != nil {
		return err
	}
	h, err := n.agent.Hello(ctx, "")
	if err != nil {
		return err
	}
	return n.cluster.Store.InTx(ctx, func(tx *store.Tx) error {
		if err := tx.NodePools(ctx, n.ID, h.Pools); err != nil {
			return err
		}
		return tx.NodeHello(ctx, node.Node{
			ID: n.ID, Epoch: n.epoch, Capacity: node.Resources{CPUs: 64, MemoryBytes: 64 * unit.GiB, DiskBytes: unit.TiB},
			Inventory: node.Inventory{Limits: limitKinds(), MachineTypes: n.Machines, CPUModels: n.CPUs, Firmware: []string{vm.FirmwareBIOS, vm.FirmwareUEFI}, Acceleration: "tcg", LiveMigration: true, WarmMigration: true},
		}, make([]byte, 32))
	})
}

// Return makes the node's agent and says hello as its session would, to the
// use-cases: jobs that wait for the node go on.
func (n *Node) Return(ctx context.Context) error {
	if err := n.startAgent(ctx); err != nil {
		return err
	}
	h, err := n.agent.Hello(ctx, "")
	if err != nil {
		return err
	}
	h.Cluster, h.Name = id.Nil, ""
	h.Inventory = nodelink.Inventory{CPUs: 64, MemoryBytes: 64 * unit.GiB, StorageBytes: unit.TiB, Limits: limitKinds(), MachineTypes: n.Machines, CPUModels: n.CPUs, Firmware: []string{vm.FirmwareBIOS, vm.FirmwareUEFI}, Acceleration: "tcg", LiveMigration: true, WarmMigration: true}
	_, err = n.cluster.Service.Hello(ctx, h, make([]byte, 32))
	return err
}
