package api

import "time"

// StoragePool is a place for disks that several nodes have.
type StoragePool struct {
	Meta
	Spec   StoragePoolSpec   `json:"spec"`
	Status StoragePoolStatus `json:"status"`
}

// StoragePoolSpec is what a pool is.
type StoragePoolSpec struct {
	// Type is shared_directory: a folder that several nodes have.
	Type string `json:"type"`
}

// StoragePoolStatus is how a pool is.
type StoragePoolStatus struct {
	// CapacityBytes of its file system, as the last node told that could use it.
	CapacityBytes Bytes `json:"capacity_bytes"`
	// UsedBytes is what the disks that are in it may come to take.
	UsedBytes Bytes `json:"used_bytes"`
	// Nodes that report it.
	Nodes []StoragePoolNode `json:"nodes"`
	// Volumes are the disks that are in it.
	Volumes []StoragePoolVolume `json:"volumes"`
}

// StoragePoolNode is a pool as one node has it.
type StoragePoolNode struct {
	Node string `json:"node"`
	// Name that the node has for it.
	Name      string `json:"name"`
	Usable    bool   `json:"usable"`
	Reason    string `json:"reason,omitempty"`
	FreeBytes Bytes  `json:"free_bytes"`
	// SeenAt is when the node last told something new of it.
	SeenAt time.Time `json:"seen_at"`
}

// StoragePoolVolume is a disk that is in a pool.
type StoragePoolVolume struct {
	ID        string `json:"id"`
	VM        string `json:"vm"`
	Slot      int    `json:"slot"`
	SizeBytes Bytes  `json:"size_bytes"`
}

// NodePool is a storage pool that a node has.
type NodePool struct {
	// ID is empty where the node has another pool than the one of that name.
	ID string `json:"id,omitempty"`
	// Name that the node has for it.
	Name   string `json:"name"`
	Usable bool   `json:"usable"`
	Reason string `json:"reason,omitempty"`
}
