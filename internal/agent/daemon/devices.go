package daemon

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// hugePages reads the pools of large pages that the host has set aside.
func hugePages(root string) (out []nodelink.HugePages) {
	dirs, err := filepath.Glob(filepath.Join(root, "hugepages-*kB"))
	if err != nil {
		return nil
	}
	for _, d := range dirs {
		kib := number(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(d), "hugepages-"), "kB"))
		total := number(text(filepath.Join(d, "nr_hugepages")))
		if kib == 0 || total == 0 {
			continue // a size that the processor knows and nobody asked for
		}
		out = append(out, nodelink.HugePages{SizeBytes: kib * unit.KiB, Total: total, Free: number(text(filepath.Join(d, "free_hugepages")))})
	}
	return out
}

// pciBridge is the class of what leads to other devices; nobody is given one.
const pciBridge = "0x06"

// pciDevices lists what a guest could be given.
func pciDevices(root string) (out []nodelink.PCIDevice) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		d := filepath.Join(root, e.Name())
		class := text(filepath.Join(d, "class"))
		if class == "" || strings.HasPrefix(class, pciBridge) {
			continue
		}
		node := -1
		if n, err := strconv.Atoi(text(filepath.Join(d, "numa_node"))); err == nil {
			node = n
		}
		out = append(out, nodelink.PCIDevice{
			Address: e.Name(), Class: hexOf(class), Vendor: hexOf(text(filepath.Join(d, "vendor"))), Device: hexOf(text(filepath.Join(d, "device"))),
			Driver: linkName(filepath.Join(d, "driver")), IOMMUGroup: linkName(filepath.Join(d, "iommu_group")), NUMANode: node,
		})
	}
	return out
}

// interfaces lists the network interfaces that are hardware: those that stand on
// a device.
func interfaces(root string) (out []nodelink.Interface) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		d := filepath.Join(root, e.Name())
		if _, err := os.Stat(filepath.Join(d, "device")); err != nil {
			continue
		}
		out = append(out, nodelink.Interface{
			Name: e.Name(), MAC: text(filepath.Join(d, "address")), Up: text(filepath.Join(d, "carrier")) == "1",
			Speed: max(number(text(filepath.Join(d, "speed"))), 0), MTU: int(number(text(filepath.Join(d, "mtu")))),
		})
	}
	return out
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func hexOf(s string) string { return strings.TrimPrefix(s, "0x") }

// linkName is the last part of where a link leads; empty when there is none.
func linkName(path string) string {
	to, err := os.Readlink(path)
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}
