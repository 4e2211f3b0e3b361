package cgroup

import (
	"path/filepath"
	"slices"
	"strconv"
)

// Values of the cpu controller.
const (
	defaultWeight = 100
	defaultShares = 1024 // of version 1, what a weight of 100 is
	minShares     = 2
	maxShares     = 262144
	period        = 100_000 // microseconds
)

// CPU is what a group may take of the host's processors.
type CPU struct {
	// Weight is its share against other groups of the node, 1 to 10000; 100 when 0.
	Weight int
	// CapPercent is the most it gets, in percent of one processor; 0 for no cap.
	CapPercent int
}

// HasCPU tells whether LimitCPU has any effect here.
func (t *Tree) HasCPU() bool {
	_, v1 := t.v1["cpu"]
	return v1 || slices.Contains(t.v2Has, "cpu")
}

// LimitCPU sets a group's limits of processors, at once, also while processes are in
// it. On a host without the controller it does nothing.
func (t *Tree) LimitCPU(name string, c CPU) error {
	if c.Weight == 0 {
		c.Weight = defaultWeight
	}
	if root, ok := t.v1["cpu"]; ok {
		return limitV1(filepath.Join(root, t.name, name), c)
	}
	if slices.Contains(t.v2Has, "cpu") {
		return limitV2(filepath.Join(t.v2, t.name, name), c)
	}
	return nil
}

func limitV1(dir string, c CPU) error {
	shares := min(max(c.Weight*defaultShares/defaultWeight, minShares), maxShares)
	if err := write(dir, "cpu.shares", strconv.Itoa(shares)); err != nil {
		return err
	}
	quota := -1
	if c.CapPercent > 0 {
		quota = c.CapPercent * period / 100
		if err := write(dir, "cpu.cfs_period_us", strconv.Itoa(period)); err != nil {
			return err
		}
	}
	return write(dir, "cpu.cfs_quota_us", strconv.Itoa(quota))
}

func limitV2(dir string, c CPU) error {
	if err := write(dir, "cpu.weight", strconv.Itoa(c.Weight)); err != nil {
		return err
	}
	quota := "max"
	if c.CapPercent > 0 {
		quota = strconv.Itoa(c.CapPercent * period / 100)
	}
	return write(dir, "cpu.max", quota+" "+strconv.Itoa(period))
}
