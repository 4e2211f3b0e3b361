package nodelink

import (
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Pool is what a node says of a storage pool that it has by its configuration.
type Pool struct {
	// ID is what the folder is marked with; nil while the node has not seen that.
	ID id.ID `json:"id"`
	// Name that the node has for it.
	Name string `json:"name"`
	// TotalBytes and FreeBytes of its file system.
	TotalBytes int64 `json:"total_bytes"`
	FreeBytes  int64 `json:"free_bytes"`
	// Why it cannot be used; empty when it can.
	Why string `json:"why,omitempty"`
}

// MostPools a node may have.
const MostPools = 64

// Pools tells of all storage pools that a node has, whenever one is another than it was. A
// server that does not know the call answers with errs.Unsupported.
type Pools struct {
	NodeEpoch gen.NodeEpoch `json:"node_epoch"`
	Items     []Pool        `json:"items"`
}

// MethodPools is the name of the uplink's call.
const MethodPools = "pools"
