package vm

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// declared is a VM at rest with a boot disk, a disk in slot 2 and a network
// interface.
func declared() View {
	img, data, on := id.New(), id.New(), id.New()
	return View{
		Intent: Intent{ID: id.New(), Name: "a", CPUs: 1, MemoryBytes: unit.GiB, ImageID: &img, ImageName: "debian", NodeID: &on, Epoch: 2},
		Node:   &NodeView{ID: on, Name: "n1", Reporting: true},
		Observed: &Observation{
			Epoch: 2, NodeID: on, Phase: PhaseExited,
		},
		Volumes: []Volume{
			{ID: id.New(), SizeBytes: 10 * unit.GiB, ImageID: &img, ImageName: "debian"},
			{ID: id.New(), Slot: 2, SizeBytes: unit.GiB, ImageID: &data, ImageName: "data"},
		},
		NICs: []NIC{{ID: id.New(), MAC: "02:4e:43:00:00:01", Forwards: []Forward{{Protocol: "tcp", HostPort: 8080, GuestPort: 80}}}},
	}
}

func running(v View) View {
	v.Intent.PowerOn = true
	o := *v.Observed
	o.Phase = PhaseRunning
	v.Observed = &o
	return v
}

func TestSteps(t *testing.T) {
	v := declared()
	same := []WantDisk{{SizeBytes: 10 * unit.GiB}, {SizeBytes: unit.GiB}}
	nics := []WantNIC{{Forwards: v.NICs[0].Forwards}}
	for name, c := range map[string]struct {
		want  Want
		view  View
		prune bool
		steps string // the kinds and where they come from, or the code and where
	}{
		"nothing declared":   {Want{}, v, false, ""},
		"all the same":       {Want{Labels: &map[string]string{}, CPUs: new(1), MemoryBytes: new(unit.GiB), PowerOn: new(false), Image: new("debian"), Disks: &same, NICs: &nics}, v, false, ""},
		"image by id":        {Want{Image: new(v.Intent.ImageID.String())}, v, false, ""},
		"another image":      {Want{Image: new("fedora")}, v, false, "field_not_writable /image"},
		"size and power":     {Want{CPUs: new(2), PowerOn: new(true)}, v, false, "change, start /power"},
		"off first":          {Want{CPUs: new(2), PowerOn: new(false)}, running(v), false, "stop /power, change"},
		"labels":             {Want{Labels: &map[string]string{"a": "b"}}, running(v), false, "change"},
		"grow both and add":  {Want{Disks: &[]WantDisk{{SizeBytes: 11 * unit.GiB}, {SizeBytes: 2 * unit.GiB}, {SizeBytes: unit.MiB}}}, v, false, "grow_disk /disks/0, grow_disk /disks/1, add_disk /disks/2"},
		"disk by slot":       {Want{Disks: &[]WantDisk{{Slot: new(2), SizeBytes: 2 * unit.GiB}, {Slot: new(0)}}}, v, false, "grow_disk /disks/0"},
		"disk by id":         {Want{Disks: &[]WantDisk{{ID: v.Volumes[1].ID.String()}, {ID: v.Volumes[0].ID.String(), SizeBytes: 11 * unit.GiB}}}, v, false, "grow_disk /disks/1"},
		"disk twice":         {Want{Disks: &[]WantDisk{{Slot: new(0)}, {ID: v.Volumes[0].ID.String()}}}, v, false, "invalid_field /disks/1"},
		"foreign disk":       {Want{Disks: &[]WantDisk{{ID: id.New().String()}}}, v, false, "conflict /disks/0/id"},
		"slot instead of id": {Want{Disks: &[]WantDisk{{ID: "0"}}}, v, false, "conflict /disks/0/id"},
		"next slot":          {Want{Disks: &[]WantDisk{{}, {}, {Slot: new(3), SizeBytes: unit.GiB}}}, v, false, "add_disk /disks/2"},
		"a slot of a choice": {Want{Disks: &[]WantDisk{{}, {}, {Slot: new(1), SizeBytes: unit.GiB}}}, v, false, "field_not_writable /disks/2/slot"},
		"other disk's image": {Want{Disks: &[]WantDisk{{}, {Image: "debian"}}}, v, false, "field_not_writable /disks/1/image"},
		"missing disk":       {Want{Disks: &[]WantDisk{{}}}, v, false, "conflict /disks"},
		"pruned disk":        {Want{Disks: &[]WantDisk{{}}}, v, true, "remove_disk /disks"},
		"no nic":             {Want{NICs: &[]WantNIC{}}, v, false, "field_not_writable /nics"},
		"nic's address":      {Want{NICs: &[]WantNIC{{MAC: "02:4e:43:00:00:02", Forwards: nics[0].Forwards}}}, v, false, "field_not_writable /nics/0"},
		"nic's forwards":     {Want{NICs: &[]WantNIC{{ID: v.NICs[0].ID.String()}}}, v, false, "field_not_writable /nics/0"},
	} {
		steps, err := c.want.Steps(c.view, c.prune)
		var got []string
		if err != nil {
			got = append(got, string(errs.CodeOf(err))+" "+errs.As(err).Fields[0].Pointer)
		}
		for _, s := range steps {
			got = append(got, strings.TrimSpace(string(s.Kind)+" "+s.At))
		}
		if s := strings.Join(got, ", "); s != c.steps {
			t.Errorf("%s: %s, want %s", name, s, c.steps)
		}
	}
}

// Once all steps are made, nothing is left to do, and each is allowed by what the
// ones before it lead to.
func TestStepsLeadThere(t *testing.T) {
	w := Want{
		Labels: &map[string]string{"a": "b"}, CPUs: new(2), PowerOn: new(false),
		Disks: &[]WantDisk{{SizeBytes: 11 * unit.GiB}, {}, {SizeBytes: unit.MiB}, {SizeBytes: unit.MiB}},
	}
	v := running(declared())
	v.Intent.Reserved = true
	steps, err := w.Steps(v, false)
	if err != nil || len(steps) != 5 {
		t.Fatalf("%+v %v", steps, err)
	}
	asks := map[StepKind]Request{StepStop: Stop, StepChange: Resize, StepGrowDisk: GrowDisk, StepAddDisk: AddDisk}
	for _, s := range steps {
		if action, err := Decide(v, asks[s.Kind]); err != nil || action != DoJob {
			t.Errorf("%s: %s %v", s.Kind, action, err)
		}
		v = v.After(s)
	}
	if left, err := w.Steps(v, false); err != nil || len(left) != 0 {
		t.Errorf("%+v %v", left, err)
	}
	w.PowerOn, w.Disks = new(true), &[]WantDisk{{}}
	if steps, err = w.Steps(v, true); err != nil || len(steps) != 4 {
		t.Fatalf("%+v %v", steps, err)
	}
	for _, s := range steps {
		v = v.After(s)
	}
	if left, err := w.Steps(v, false); err != nil || len(left) != 0 || !v.Intent.PowerOn || len(v.Volumes) != 1 {
		t.Errorf("%+v %v", left, err)
	}
}

func TestWantNew(t *testing.T) {
	for name, c := range map[string]struct {
		want Want
		at   string
	}{
		"whole":           {Want{CPUs: new(1), Image: new("debian"), Disks: &[]WantDisk{{Slot: new(0), Image: "debian"}, {SizeBytes: unit.GiB}}, NICs: &[]WantNIC{{}}}, ""},
		"disk's id":       {Want{Disks: &[]WantDisk{{ID: id.New().String()}}}, "/disks/0/id"},
		"slots in a row":  {Want{Disks: &[]WantDisk{{Slot: new(1)}}}, "/disks/0/slot"},
		"nic's address":   {Want{NICs: &[]WantNIC{{}, {MAC: "02:4e:43:00:00:02"}}}, "/nics/1"},
		"nothing at all?": {Want{}, ""},
	} {
		s, err := c.want.New("a")
		if c.at == "" && err != nil || c.at != "" && (!errs.Is(err, errs.FieldNotWritable) || errs.As(err).Fields[0].Pointer != c.at) {
			t.Errorf("%s: %+v %v", name, s, err)
		}
		if name == "whole" && (s.CPUs != 1 || len(s.Disks) != 2 || s.Disks[0].Image != "" || len(s.NICs) != 1) {
			t.Errorf("%+v", s)
		}
	}
}
