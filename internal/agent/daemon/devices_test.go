package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/internal/nodelink"
)

// sysfs lays out files and, for values that begin with "->", links.
func sysfs(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if len(text) > 2 && text[:2] == "->" {
			err = errors.Join(err, os.Symlink(text[2:], path))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(text+"\n"), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestDevicesOfTheHost(t *testing.T) {
	pages := sysfs(t, map[string]string{
		"hugepages-2048kB/nr_hugepages": "512", "hugepages-2048kB/free_hugepages": "500",
		"hugepages-1048576kB/nr_hugepages": "0", "hugepages-1048576kB/free_hugepages": "0",
		"hugepages-oddkB/nr_hugepages": "1",
	})
	if diff := cmp.Diff([]nodelink.HugePages{{SizeBytes: 2 << 20, Total: 512, Free: 500}}, hugePages(pages)); diff != "" {
		t.Error(diff)
	}
	pci := sysfs(t, map[string]string{
		"0000:00:00.0/class": "0x060000", "0000:00:00.0/vendor": "0x8086",
		"0000:3b:00.0/class": "0x030200", "0000:3b:00.0/vendor": "0x10de", "0000:3b:00.0/device": "0x20b0", "0000:3b:00.0/numa_node": "1",
		"0000:3b:00.0/driver": "->../../bus/pci/drivers/vfio-pci", "0000:3b:00.0/iommu_group": "->../../kernel/iommu_groups/42",
		"0000:04:00.0/class": "0x010802", "0000:04:00.0/vendor": "0x144d", "0000:04:00.0/device": "0xa80a",
	})
	if diff := cmp.Diff([]nodelink.PCIDevice{
		{Address: "0000:04:00.0", Class: "010802", Vendor: "144d", Device: "a80a", NUMANode: -1},
		{Address: "0000:3b:00.0", Class: "030200", Vendor: "10de", Device: "20b0", Driver: "vfio-pci", IOMMUGroup: "42", NUMANode: 1},
	}, pciDevices(pci)); diff != "" {
		t.Error(diff)
	}
	net := sysfs(t, map[string]string{
		"eth0/device/vendor": "0x1af4", "eth0/address": "52:54:00:00:00:01", "eth0/carrier": "1", "eth0/speed": "10000", "eth0/mtu": "9000",
		"eth1/device/vendor": "0x1af4", "eth1/address": "52:54:00:00:00:02", "eth1/speed": "-1", "eth1/mtu": "1500",
		"br0/address": "52:54:00:00:00:03", "lo/mtu": "65536",
	})
	if diff := cmp.Diff([]nodelink.Interface{
		{Name: "eth0", MAC: "52:54:00:00:00:01", Up: true, Speed: 10000, MTU: 9000},
		{Name: "eth1", MAC: "52:54:00:00:00:02", MTU: 1500},
	}, interfaces(net)); diff != "" {
		t.Error(diff)
	}
	for _, none := range []int{len(hugePages("/nonexistent")), len(pciDevices("/nonexistent")), len(interfaces("/nonexistent"))} {
		if none != 0 {
			t.Error("something was found where nothing is")
		}
	}
}
