package qemu

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

var update = flag.Bool("update", false, "write the golden files anew")

func fixed(n byte) id.ID {
	u := id.ID{0x01, 0x9a, 0, 0, 0, 0, 0x70, 0, 0x80}
	u[15] = n
	return u
}

// full is a machine with one of everything.
func full() contract.Machine {
	return contract.Machine{
		Ref:         contract.Ref{VM: fixed(1), Epoch: 3},
		CPUs:        2,
		MemoryBytes: 512 * unit.MiB,
		Boot:        contract.Boot{Kernel: "/images/vmlinuz", Initrd: "/images/initrd", Cmdline: `console=ttyS0 x="a,b",if=none`},
		Disks: []contract.Disk{
			{
				ID: fixed(2), File: contract.File{Path: "/volumes/a.qcow2", Format: "qcow2"},
				Backing: &contract.File{Path: "/images/base.raw", Format: "raw"},
			},
			{ID: fixed(3), File: contract.File{Path: "/volumes/b.qcow2", Format: "qcow2"}},
			{ID: fixed(4), File: contract.File{Path: "/volumes/c.raw", Format: "raw"}, ReadOnly: true},
		},
		CDs: []contract.CD{
			{ID: fixed(6), File: contract.File{Path: "/volumes/seed.raw", Format: "raw"}, Private: true},
			{ID: fixed(7), File: contract.File{Path: "/images/drivers", Format: "raw"}},
		},
		NICs: []contract.NIC{{ID: fixed(5), MAC: "52:54:00:12:34:56", Forwards: []contract.Forward{
			{Protocol: "tcp", HostPort: 2222, GuestPort: 22},
			{Protocol: "udp", HostIP: "192.0.2.7", HostPort: 53, GuestPort: 5353},
		}}},
		Screen: true,
	}
}

func plain() contract.Machine {
	m := full()
	m.Boot, m.NICs, m.CDs, m.Disks, m.Screen = contract.Boot{}, nil, nil, m.Disks[1:2], false
	return m
}

func small(m contract.Machine) contract.Machine {
	m.Screen = false
	return m
}

var onHost = shape{binary: "/usr/bin/qemu-system-x86_64", machine: "pc-q35-7.2", accel: "tcg", cpu: "max", ram: "/dev/shm/novacron/0a1b2c3d/vm", kernel: "/vm/kernel", initrd: "/vm/initrd", inside: "/vm/run"}

func TestCommandLineIsAsReviewed(t *testing.T) {
	kvm := onHost
	kvm.accel, kvm.cpu = "kvm", "host"
	passt := onHost
	passt.nets = map[int]int{0: 70}
	agent := onHost
	agent.agent = true
	bridged, tapped := full(), passt
	bridged.NICs = append([]contract.NIC{{ID: fixed(8), MAC: "02:4e:43:12:34:56", Bridge: "br0"}}, bridged.NICs...)
	tapped.taps, tapped.nets = tapFDs(bridged), map[int]int{1: 71}
	empty, loaded := plain(), full()
	empty.Drive, loaded.Drive = true, true
	loaded.Medium = &contract.Medium{ID: strings.Repeat("0f", 32), File: contract.File{Path: "/images/0f", Format: "raw"}}
	tablet, micro := agent, agent
	tablet.layout = layoutTablet
	micro.machine, micro.nets, micro.layout = "microvm", map[int]int{0: 70}, layoutTablet
	for name, c := range map[string]struct {
		m contract.Machine
		s shape
	}{
		"drive": {empty, agent}, "medium": {loaded, agent}, "tablet": {loaded, tablet}, "full": {full(), onHost}, "plain": {plain(), kvm},
		"passt": {full(), passt}, "bridge": {bridged, tapped}, "agent": {plain(), agent}, "microvm": {small(loaded), micro},
	} {
		got, err := commandLine(c.m, c.s)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(got, "\n") + "\n"
		golden := filepath.Join("testdata", name+".args")
		if *update {
			if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), text); diff != "" {
			t.Errorf("%s (go test -update writes it anew):\n%s", name, diff)
		}
	}
}

// The paths of images are not on the command line, whatever they hold: QEMU is
// handed the files open.
func TestPathsCannotAddOptions(t *testing.T) {
	normal, err := commandLine(plain(), onHost)
	if err != nil {
		t.Fatal(err)
	}
	for _, evil := range []string{`/v/a,readonly=off.qcow2`, `/v/a","driver":"nbd.qcow2`, "/v/a\n-monitor stdio", `/v/json:{}`, "/v/\xff"} {
		m := plain()
		m.Disks[0].File.Path = evil
		got, err := commandLine(m, onHost)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(normal, got); diff != "" {
			t.Errorf("%q changes the command line:\n%s", evil, diff)
		}
	}
}

// What is handed over is numbered as it is on the command line.
func TestImagesAreNumbered(t *testing.T) {
	m := full()
	args, err := commandLine(m, onHost)
	if err != nil {
		t.Fatal(err)
	}
	handed := imagesOf(m)
	var writable []bool
	for i, a := range args {
		var node struct {
			Driver   string
			Filename string
			ReadOnly bool `json:"read-only"`
		}
		if i == 0 || args[i-1] != "-blockdev" || json.Unmarshal([]byte(a), &node) != nil || node.Driver != "file" {
			continue
		}
		option, path := fdset(len(writable))
		if node.Filename != path || args[i-2] != option {
			t.Errorf("image %d is %q of %q", len(writable), node.Filename, args[i-2])
		}
		writable = append(writable, !node.ReadOnly)
	}
	if len(writable) != len(handed) {
		t.Fatalf("%d images are handed over, %d opened", len(handed), len(writable))
	}
	for i, h := range handed {
		if h.write != writable[i] {
			t.Errorf("%s: handed over writable: %t, opened so: %t", h.what, h.write, writable[i])
		}
	}
}

// Every image has an explicit format and, but for our own overlays, no backing.
func TestNothingIsProbed(t *testing.T) {
	args, err := commandLine(full(), onHost)
	if err != nil {
		t.Fatal(err)
	}
	backed := 0
	for i, a := range args {
		if i == 0 || args[i-1] != "-blockdev" {
			if strings.Contains(a, "file=") || slices.Contains([]string{"-drive", "-hda", "-cdrom", "-blockdev"}, a) && a != "-blockdev" {
				t.Errorf("a way to give disks that probes them: %q", a)
			}
			continue
		}
		var node map[string]any
		if err := json.Unmarshal([]byte(a), &node); err != nil {
			t.Fatal(err)
		}
		backing, said := node["backing"]
		switch {
		case node["driver"] == nil:
			t.Errorf("a node without a driver: %s", a)
		case node["driver"] == "qcow2" && !said:
			t.Errorf("a qcow2 node that looks up its backing itself: %s", a)
		case backing != nil:
			backed++
		}
	}
	if backed != 1 {
		t.Errorf("%d nodes have a backing, want the one overlay", backed)
	}
}

func TestForwardsFromIPv6AreRefusedByName(t *testing.T) {
	m := full()
	m.NICs[0].Forwards[0].HostIP = "::1"
	if _, err := commandLine(m, onHost); !errs.Is(err, errs.Unsupported) {
		t.Fatalf("got %v", err)
	}
}
