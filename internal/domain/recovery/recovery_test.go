package recovery

import (
	"slices"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// world is a database with one VM, "web", on one node, and a disk.
type world struct {
	Snapshot
	web, disk id.ID
}

func newWorld() *world {
	n := Node{ID: id.New(), Name: "n1", Answered: true, Volumes: map[id.ID]int64{}}
	w := &world{web: id.New(), disk: id.New()}
	n.Volumes[w.disk] = 1 << 20
	n.Holdings = []Holding{{VM: w.web, Epoch: 3, OpSeq: 5, PowerOn: true, Volumes: []id.ID{w.disk}, Machine: machine("web", w.disk)}}
	w.Nodes = []Node{n}
	w.VMs = []vm.View{{
		Intent:  vm.Intent{ID: w.web, Name: "web", CPUs: 1, MemoryBytes: 1 << 30, NodeID: &n.ID, Epoch: 3, OpSeq: 5, PowerOn: true},
		Volumes: []vm.Volume{{ID: w.disk, SizeBytes: 1 << 20}},
	}}
	w.Whole = true
	return w
}

func machine(name string, disks ...id.ID) *Machine {
	return &Machine{Name: name, CPUs: 1, MemoryBytes: 1 << 30, Volumes: disks}
}

func (w *world) holding() *Holding { return &w.Nodes[0].Holdings[0] }

func (w *world) running() *Holding {
	h := w.holding()
	h.Observed = &vm.Observation{Epoch: h.Epoch, Phase: vm.PhaseRunning}
	return h
}

// move has the VM go from n0, where the database has it, to n1.
func (w *world) move() {
	was := Node{ID: id.New(), Name: "n0", Answered: true, Holdings: []Holding{{VM: w.web, Epoch: 4, OpSeq: 6, Erased: true}}}
	w.Nodes = append(w.Nodes, was)
	w.VMs[0].Intent.NodeID = &was.ID
	w.VMs[0].Node = &vm.NodeView{ID: was.ID, Name: was.Name}
	w.holding().Epoch, w.holding().OpSeq = 4, 6
}

// job adds one that had not ended, and holds the VM.
func (w *world) job(kind string, opSeq int64) id.ID {
	j := Job{ID: id.New(), Kind: kind, TargetKind: "vm", Target: w.web, OpSeq: opSeq}
	w.Jobs = append(w.Jobs, j)
	w.VMs[0].Job = &vm.JobView{ID: j.ID, Kind: kind, Target: w.web}
	return j.ID
}

func TestCompare(t *testing.T) {
	for what, c := range map[string]struct {
		change func(w *world)
		vm     string // case and action of the only VM that differs
		job    Action // of the only job
		says   string
	}{
		"nothing differs":             {change: func(*world) {}},
		"started since":               {change: func(w *world) { w.holding().Epoch, w.holding().OpSeq = 4, 6 }, vm: "changed adopt", says: "owner epoch 4, in the database 3"},
		"stopped since":               {change: func(w *world) { h := w.holding(); h.OpSeq, h.PowerOn = 6, false }, vm: "changed adopt", says: "is wanted off, in the database on"},
		"resized since":               {change: func(w *world) { h := w.holding(); h.Epoch, h.Machine.CPUs = 4, 8 }, vm: "changed adopt", says: "has 8 CPUs"},
		"the database knows more":     {change: func(w *world) { w.holding().Epoch, w.holding().OpSeq = 2, 4 }},
		"deleted since":               {change: func(w *world) { *w.holding() = Holding{VM: w.web, Epoch: 3, OpSeq: 6, Erased: true} }, vm: "missing lose", says: "deleted since"},
		"deleted long ago":            {change: func(w *world) { w.Nodes[0].Holdings, w.Nodes[0].Volumes = nil, nil }, vm: "missing lose"},
		"its record is lost":          {change: func(w *world) { w.Nodes[0].Holdings = nil }},
		"a fence is all, and ahead":   {change: func(w *world) { *w.holding() = Holding{VM: w.web, Epoch: 3, OpSeq: 9} }, vm: "changed adopt"},
		"numbers that cannot be true": {change: func(w *world) { w.holding().Epoch = 1 << 50 }, vm: "changed leave"},
		"made since":                  {change: func(w *world) { w.VMs = nil }, vm: "unknown adopt"},
		"made since, and left before": {change: func(w *world) {
			w.VMs, w.Left = nil, map[Left]bool{{w.web, w.Nodes[0].ID}: true}
		}, vm: "unknown leave"},
		"made since, of no known size":          {change: func(w *world) { w.VMs, w.holding().Machine = nil, nil }, vm: "unknown leave"},
		"made since, with another's disk":       {change: func(w *world) { w.VMs[0].Intent.ID, w.VMs[0].Intent.NodeID = id.New(), nil }, vm: "unknown leave", says: ""},
		"made since, of a size that is refused": {change: func(w *world) { w.VMs, w.holding().Machine.CPUs = nil, 100000 }, vm: "unknown leave"},
		"made since, with a name that is none":  {change: func(w *world) { w.VMs, w.holding().Machine.Name = nil, "../x" }, vm: "unknown leave"},
		"on another node":                       {change: func(w *world) { other := id.New(); w.VMs[0].Intent.NodeID = &other }, vm: "elsewhere leave"},
		"moved since":                           {change: func(w *world) { w.move() }, vm: "changed adopt", says: "moved here from node n0"},
		"moved, and the other has it too": {change: func(w *world) {
			w.move()
			w.Nodes[1].Holdings[0].Erased = false
			w.Nodes[1].Holdings[0].Volumes = []id.ID{w.disk}
		}, vm: "changed adopt, elsewhere leave"},
		"moved, and the other has a disk of it": {change: func(w *world) { w.move(); w.Nodes[1].Volumes = map[id.ID]int64{w.disk: 1} }, vm: "elsewhere leave, missing lose"},
		"moved, and the other knows more":       {change: func(w *world) { w.move(); w.Nodes[1].Holdings[0].OpSeq = 9 }, vm: "elsewhere leave, missing lose"},
		"moved, as one node alone says":         {change: func(w *world) { w.move(); w.Nodes[1].Holdings = nil }, vm: "elsewhere leave, missing lose"},
		"moved, to a database that is not back": {change: func(w *world) { w.move(); w.Whole = false }, vm: "elsewhere leave, missing lose"},
		"moved by the job that had not ended":   {change: func(w *world) { w.move(); w.job(vm.JobMigrate, 6) }, vm: "changed adopt", job: End},
		"placed since":                          {change: func(w *world) { w.VMs[0].Intent.NodeID = nil }, vm: "changed adopt", says: "on none"},

		"a job that was done":                {change: func(w *world) { w.job(vm.JobStop, 5) }, job: End},
		"a job that a later one followed":    {change: func(w *world) { w.job(vm.JobStop, 5); w.holding().OpSeq = 7 }, vm: "changed adopt", job: End},
		"a job that its node never heard of": {change: func(w *world) { w.job(vm.JobStop, 6) }, job: GoOn},
		"a deletion that was done": {change: func(w *world) {
			*w.holding() = Holding{VM: w.web, Epoch: 3, OpSeq: 6, Erased: true, Operation: w.job(vm.JobDelete, 6), Attempt: 9}
		}, job: GoOn},
		"a deletion that was done, of another job": {change: func(w *world) {
			w.job(vm.JobStop, 5)
			*w.holding() = Holding{VM: w.web, Epoch: 3, OpSeq: 6, Erased: true}
		}, vm: "missing lose", job: End},
		"a creation that was done": {change: func(w *world) { w.job(vm.JobCreate, 1); w.VMs[0].Intent.NodeID = nil }, vm: "changed adopt", job: End},
		"a creation that nobody knows of": {change: func(w *world) {
			w.job(vm.JobCreate, 1)
			w.VMs[0].Intent.NodeID, w.Nodes[0].Holdings = nil, nil
		}, job: GoOn},
		"a creation that an absent node may have done": {change: func(w *world) {
			w.job(vm.JobCreate, 1)
			w.VMs[0].Intent.NodeID, w.Nodes[0].Answered = nil, false
		}, job: End},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld()
			c.change(w)
			p := Compare(w.Snapshot)
			var got []string
			for _, v := range p.VMs {
				got = append(got, string(v.Case)+" "+string(v.Action))
				if !strings.Contains(strings.Join(v.Differences, "; "), c.says) {
					t.Errorf("it says %q, not %q", v.Differences, c.says)
				}
				if (v.Action == Adopt) != (v.Adoption != nil) {
					t.Errorf("%s, and %+v", v.Action, v.Adoption)
				}
			}
			if strings.Join(got, ", ") != c.vm {
				t.Errorf("VMs: %q, want %q", got, c.vm)
			}
			var job Action
			for _, j := range p.Jobs {
				job += j.Action
			}
			if job != c.job {
				t.Errorf("jobs: %q, want %q", job, c.job)
			}
			if again := Compare(w.Snapshot); again.ID != p.ID || p.ID == "" {
				t.Errorf("compared twice: %s and %s", p.ID, again.ID)
			}
		})
	}
}

// The plan has another name as soon as something else is done, and the same one
// while a guest merely comes and goes.
func TestPlanID(t *testing.T) {
	id := func(change func(w *world)) string {
		w := newWorld()
		w.web[0], w.disk[0] = 1, 2
		w.holding().Epoch = 4
		change(w)
		return Compare(w.Snapshot).ID
	}
	w := newWorld()
	w.holding().Epoch = 4
	before := Compare(w.Snapshot).ID
	w.running()
	if Compare(w.Snapshot).ID != before {
		t.Error("a guest that runs makes another plan")
	}
	w.holding().PowerOn = false
	w.holding().Observed = nil
	if Compare(w.Snapshot).ID == before {
		t.Error("another wish makes the same plan")
	}
	if id(func(*world) {}) == id(func(w *world) { w.Nodes[0].Answered = false }) {
		t.Error("an absent node makes the same plan")
	}
}

// What is adopted is what the node has.
func TestAdoption(t *testing.T) {
	w := newWorld()
	h := w.running()
	more := id.New()
	h.Epoch, h.OpSeq, h.PowerOn = 7, 11, false
	h.Machine.MemoryBytes = 2 << 30
	h.Volumes = append(h.Volumes, more)
	base := image.File{SHA256: strings.Repeat("ab", 32), SizeBytes: 512, Format: "raw"}
	h.Bases = map[id.ID]image.File{more: base}
	w.Nodes[0].Volumes[w.disk], w.Nodes[0].Volumes[more] = 4<<20, 8<<20
	a := Compare(w.Snapshot).VMs[0].Adoption
	if a.Fence != (Fence{7, 11}) || !a.PowerOn || a.MemoryBytes != 2<<30 || len(a.Resized) != 1 || a.Resized[0].SizeBytes != 4<<20 {
		t.Errorf("%+v", a)
	}
	if len(a.Volumes) != 1 || a.Volumes[0].Slot != 1 || a.Volumes[0].ImageID == nil {
		t.Errorf("%+v", a.Volumes)
	}
	if p := Compare(w.Snapshot); len(p.Images) != 1 || !strings.HasPrefix(p.Images[0].Name, "recovered-abab") {
		t.Errorf("%+v", p.Images)
	}
	w.Images = []image.Image{{ID: id.New(), Name: "known", Kind: image.Disk, State: image.Ready, Files: []image.File{{Role: image.RoleDisk, SHA256: base.SHA256}}}}
	p := Compare(w.Snapshot)
	if len(p.Images) != 0 || *p.VMs[0].Adoption.Volumes[0].ImageID != w.Images[0].ID {
		t.Errorf("an image that is known was made anew: %+v", p)
	}
}

// What is made anew stands on the same files: kernel, CD, disk.
func TestImagesAreMadeAnew(t *testing.T) {
	sum := func(c string) image.File {
		return image.File{SHA256: strings.Repeat(c, 64), SizeBytes: 512, Format: "raw"}
	}
	kernel, initrd, cd := sum("1"), sum("2"), sum("3")
	w := newWorld()
	w.VMs = nil
	m := w.holding().Machine
	m.Kernel, m.Initrd, m.CD, m.Cmdline = &kernel, &initrd, &cd, "console=ttyS0"
	w.holding().Bases = map[id.ID]image.File{w.disk: sum("4")}
	p := Compare(w.Snapshot)
	made := map[id.ID]image.Image{}
	for _, i := range p.Images {
		made[i.ID] = i
	}
	a := p.VMs[0].Adoption
	if len(made) != 3 || made[*a.ImageID].Kind != image.Kernel || made[*a.SeedImageID].Kind != image.ISO || made[*a.Volumes[0].ImageID].Kind != image.Disk {
		t.Errorf("%+v of %+v", a, p.Images)
	}
	if k := made[*a.ImageID]; k.Cmdline != m.Cmdline || len(k.Files) != 2 || k.Files[1].SHA256 != initrd.SHA256 {
		t.Errorf("%+v", k)
	}
	// a file that cannot be true makes no image
	cd.SHA256 = "../../etc/passwd"
	if p := Compare(w.Snapshot); p.VMs[0].Adoption.SeedImageID != nil || len(p.Images) != 2 {
		t.Errorf("%+v", p.Images)
	}
}

// A VM whose name somebody else has by now gets one of its own.
func TestNamesAreKept(t *testing.T) {
	w := newWorld()
	w.VMs[0].Intent.ID, w.VMs[0].Volumes, w.VMs[0].Intent.NodeID = id.New(), nil, nil
	a := Compare(w.Snapshot).VMs[0].Adoption
	if a == nil || a.Name != "web-"+id.Short(w.web) || id.CheckName("/name", a.Name) != nil {
		t.Errorf("%+v", a)
	}
}

// One node can put nobody into hold but itself, whatever it tells of others.
func TestEvidence(t *testing.T) {
	n := Node{ID: id.New(), Name: "n1"}
	here, other := n.ID, id.New()
	v := id.New()
	in := vm.Intent{ID: v, Name: "web", NodeID: &here, Epoch: 3, OpSeq: 5}
	for what, c := range map[string]struct {
		holding Holding
		in      *vm.Intent
		left    bool
		want    string
	}{
		"the same":               {holding: Holding{VM: v, Epoch: 3, OpSeq: 5, PowerOn: true}, in: &in},
		"behind":                 {holding: Holding{VM: v, Epoch: 1, OpSeq: 2, PowerOn: true}, in: &in},
		"a later epoch":          {holding: Holding{VM: v, Epoch: 4, OpSeq: 5, PowerOn: true}, in: &in, want: "owner epoch 4"},
		"a later job":            {holding: Holding{VM: v, Epoch: 3, OpSeq: 6}, in: &in, want: "job number 6"},
		"erased under the same":  {holding: Holding{VM: v, Epoch: 3, OpSeq: 5, Erased: true}, in: &in},
		"unknown":                {holding: Holding{VM: v, Epoch: 1, PowerOn: true}, want: "does not have"},
		"unknown and left":       {holding: Holding{VM: v, Epoch: 1, PowerOn: true}, left: true},
		"the fence of a deleted": {holding: Holding{VM: v, Epoch: 1, OpSeq: 3, Erased: true}},
		"another node's":         {holding: Holding{VM: v, Epoch: 9, PowerOn: true}, in: &vm.Intent{Name: "web", NodeID: &other, Epoch: 3}, want: "another node"},
		"a copy":                 {holding: Holding{VM: v, Epoch: 4, OpSeq: 5, Observed: &vm.Observation{Phase: vm.PhaseIncoming}}, in: &vm.Intent{Name: "web", NodeID: &other, Epoch: 3}, left: true},
		"a copy on no record":    {holding: Holding{VM: v, Epoch: 4, OpSeq: 5, Observed: &vm.Observation{Phase: vm.PhaseIncoming}}, in: &vm.Intent{Name: "web", NodeID: &other, Epoch: 3}, want: "another node"},
		"another node's fence":   {holding: Holding{VM: v, Epoch: 9, Erased: true}, in: &vm.Intent{Name: "web", NodeID: &other, Epoch: 3}},
	} {
		n.Holdings = []Holding{c.holding}
		vms := map[id.ID]vm.Intent{}
		if c.in != nil {
			vms[v] = *c.in
		}
		left := map[Left]bool{{v, n.ID}: c.left}
		if got := Evidence(n, vms, left); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}

func TestBehind(t *testing.T) {
	for _, c := range []struct {
		ahead, nodes int64
		want         bool
	}{{0, 0, false}, {1, 1, false}, {1, 2, false}, {2, 2, true}, {1, 100, false}, {30, 100, false}, {31, 100, true}, {2, 10, false}, {3, 10, false}, {4, 10, true}} {
		if Behind(c.ahead, c.nodes) != c.want {
			t.Errorf("%d of %d: %v", c.ahead, c.nodes, !c.want)
		}
	}
}

// Whatever nodes tell, a plan adopts no VM twice, lowers no number, and takes no
// VM from the node that has it.
func FuzzCompare(f *testing.F) {
	f.Add(int64(3), int64(5), int64(4), int64(6), uint8(3))
	f.Fuzz(func(t *testing.T, epoch, seq, theirs, theirSeq int64, bits uint8) {
		w := newWorld()
		w.VMs[0].Intent.Epoch, w.VMs[0].Intent.OpSeq = gen.OwnerEpoch(max(epoch, 0)), max(seq, 0)
		h := w.holding()
		h.Epoch, h.OpSeq, h.PowerOn, h.Erased = gen.OwnerEpoch(theirs), theirSeq, bits&1 != 0, bits&2 != 0
		if bits&4 != 0 {
			w.VMs = nil
		}
		second := Node{ID: id.New(), Name: "n2", Answered: bits&8 != 0, Holdings: []Holding{{VM: w.web, Epoch: 1 << 30, PowerOn: true, Machine: machine("web")}}}
		w.Nodes = append(w.Nodes, second)
		var adopted []id.ID
		for _, v := range Compare(w.Snapshot).VMs {
			if v.Action != Adopt {
				continue
			}
			if len(w.VMs) > 0 && v.Node != *w.VMs[0].Intent.NodeID {
				t.Errorf("taken from its node: %+v", v)
			}
			if len(w.VMs) > 0 && (v.Adoption.Fence.Epoch < w.VMs[0].Intent.Epoch || v.Adoption.Fence.OpSeq < w.VMs[0].Intent.OpSeq) {
				t.Errorf("a number falls: %+v", v.Adoption)
			}
			if slices.Contains(adopted, v.VM) {
				t.Errorf("adopted twice")
			}
			adopted = append(adopted, v.VM)
		}
	})
}
