package vm

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func TestLimitsAreChecked(t *testing.T) {
	for _, c := range []struct {
		l    DiskLimits
		want string
	}{
		{DiskLimits{}, ""},
		{DiskLimits{IOPS: 1, BytesPerSecond: 64 * unit.KiB}, ""},
		{DiskLimits{ReadIOPS: 1, WriteIOPS: 7, WriteBytesPerSecond: unit.MiB}, ""},
		{DiskLimits{IOPS: -1}, "/limits/iops"},
		{DiskLimits{IOPS: 5, ReadIOPS: 5}, "excludes"},
		{DiskLimits{BytesPerSecond: unit.MiB, WriteBytesPerSecond: unit.MiB}, "excludes"},
		{DiskLimits{BytesPerSecond: 1000}, "/limits/bytes_per_second"},
		{DiskLimits{WriteIOPS: 1 << 60}, "/limits/write_iops"},
	} {
		err := c.l.Validate()
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.l, err, c.want)
		}
	}
	for _, c := range []struct {
		l  Limits
		ok bool
	}{
		{Limits{}, true},
		{Limits{CPUWeight: 1, CPUCapPercent: 1}, true},
		{Limits{CPUWeight: 10001}, false},
		{Limits{CPUWeight: -1}, false},
		{Limits{CPUCapPercent: -1}, false},
		{Limits{CPUCapPercent: MaxCPUCapPercent + 1}, false},
	} {
		err := Spec{Name: "a", CPUs: 1, MemoryBytes: MinMemory, Limits: c.l}.Validate()
		if (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.l, err)
		}
	}
}

// A weight of 100 is none: a node without the controller takes such a VM.
func TestKindsOfLimits(t *testing.T) {
	v := View{Intent: Intent{Limits: Limits{CPUWeight: DefaultCPUWeight}}, Volumes: []Volume{{}}}
	if kinds := v.Limited(); len(kinds) != 0 {
		t.Errorf("%v", kinds)
	}
	v.Intent.Limits = Limits{CPUWeight: 5, CPUCapPercent: 50}
	v.Volumes[0].Limits.IOPS = 7
	if kinds := strings.Join(v.Limited(), " "); kinds != "cpu_weight cpu_cap disk_io" {
		t.Errorf("%v", kinds)
	}
}

// What a node would start by its own record has to be told as well as a guest that
// runs; what rests is brought its limits by its next start.
func TestWhoHasAGuest(t *testing.T) {
	node := id.New()
	for name, c := range map[string]struct {
		v    View
		want bool
	}{
		"new":             {View{}, false},
		"never started":   {View{Intent: Intent{NodeID: &node}}, false},
		"stopped":         {View{Intent: Intent{NodeID: &node, Epoch: 2}, Observed: &Observation{Phase: PhaseExited}}, false},
		"running":         {View{Intent: Intent{NodeID: &node, Epoch: 2, PowerOn: true}, Observed: &Observation{Phase: PhaseRunning}}, true},
		"ended by itself": {View{Intent: Intent{NodeID: &node, Epoch: 2, PowerOn: true}, Observed: &Observation{Phase: PhaseExited}}, true},
	} {
		if got := c.v.HasGuest(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
