package vm

import (
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// at builds a view that appears as the state, at rest.
func at(s State) View {
	node := id.New()
	v := View{
		Intent: Intent{ID: id.New(), Name: "web-1", NodeID: &node, Epoch: 3},
		Node:   &NodeView{ID: node, Name: "n1", Reporting: true, SeenAt: time.Unix(50, 0)},
	}
	see := func(p Phase) { v.Observed = &Observation{Epoch: 3, NodeID: node, Phase: p, Since: time.Unix(40, 0)} }
	hold := func(kind string) { v.Job = &JobView{ID: id.New(), Kind: kind} }
	switch s {
	case Pending:
		v = View{Intent: Intent{ID: id.New(), Name: "web-1"}}
	case Provisioning:
		v.Intent.Epoch = 0
		hold(JobCreate)
	case Starting:
		see(PhaseStarting)
	case Running:
		see(PhaseRunning)
	case Paused:
		see(PhasePaused)
	case Suspended:
		see(PhaseSuspended)
	case Stopping:
		see(PhaseStopping)
	case Stopped:
		see(PhaseExited)
	case Deleting:
		v.Intent.Deleting = true
		see(PhaseExited)
	case Failed:
		see(PhaseCrashed)
	case Unknown:
		see(PhaseRunning)
		v.Node.Reporting = false
	case Migrating:
		hold(JobMigrate)
	case Restoring:
		// no job of this kind exists yet
	}
	return v
}

func TestAppear(t *testing.T) {
	for _, s := range States() {
		if s == Restoring {
			continue
		}
		if got := Appear(at(s)); got.State != s {
			t.Errorf("view of %s appears as %s (%s)", s, got.State, got.Reason)
		}
	}
}

func TestAppearUnknownKeepsWhatIsBeneath(t *testing.T) {
	got := Appear(at(Unknown))
	if got.Last != Running || !got.Since.Equal(time.Unix(50, 0)) || !strings.Contains(got.Reason, "n1") {
		t.Errorf("got %+v", got)
	}
}

func TestAppearStoppedOnLostNodeIsStopped(t *testing.T) {
	v := at(Stopped)
	v.Node.Reporting = false
	if got := Appear(v); got.State != Stopped {
		t.Errorf("a VM without a process appears as %s", got.State)
	}
}

// An epoch was raised for a launch and nothing reported: the command may have
// arrived before the node fell silent.
func TestAppearUnreportedIncarnationOnLostNodeIsUnknown(t *testing.T) {
	v := at(Stopped)
	v.Intent.Epoch = 4
	v.Node.Reporting = false
	if got := Appear(v); got.State != Unknown {
		t.Errorf("appears as %s", got.State)
	}
}

func TestAppearIsTotal(t *testing.T) {
	node := id.New()
	jobs := append(JobKinds(), "", "vm.other")
	valid := map[State]bool{}
	for _, s := range States() {
		valid[s] = true
	}
	for _, phase := range append(Phases(), "") {
		for _, job := range jobs {
			for bits := range 32 {
				v := View{Intent: Intent{Epoch: 2, Deleting: bits&1 != 0, PowerOn: bits&2 != 0}}
				if bits&4 != 0 {
					v.Intent.Failure = &Failure{Message: "x"}
				}
				if bits&8 != 0 {
					v.Intent.NodeID = &node
					v.Node = &NodeView{Name: "n", Reporting: bits&16 != 0}
				}
				if phase != "" {
					v.Observed = &Observation{Phase: phase, Epoch: 2}
				}
				if job != "" {
					v.Job = &JobView{Kind: job, Target: v.Intent.ID}
				}
				if got := Appear(v); !valid[got.State] {
					t.Fatalf("phase %q job %q bits %b appear as %q", phase, job, bits, got.State)
				}
			}
		}
	}
}

// The whole matrix, written out: the letter is j(ob), d(one), or x (refused).
func TestDecideEveryPair(t *testing.T) {
	order := Requests() // start stop restart pause resume suspend migrate snapshot restore clone capture resize add_disk grow_disk remove_disk limit change_cd freeze delete
	want := map[State]string{
		Pending:   "xxxxxxxxxxxxxxxxxxj",
		Starting:  "djxxxxxxxxxxxxxxxxj",
		Running:   "djjjdjjjxxxxxjxjjjj",
		Paused:    "xjjdjjjjxxxxxjxjjxj",
		Suspended: "jjxxjdjxxxxxxxxjxxj",
		Stopping:  "xjxxxxxxxxxxxxxxxxj",
		Stopped:   "jdjxxxjjjjjjjjjjjxj",
		Deleting:  "xxxxxxxxxxxxxxxxxxj",
		Failed:    "jjjxxxjxjjjjjjjjjxj",
		Unknown:   "xjxxxxxxxxxxxxxxxxj",
	}
	for s, row := range want {
		for i, r := range order {
			a, err := Decide(at(s), r)
			got := map[Action]string{DoJob: "j", DoNothing: "d", "": "x"}[a]
			if got != row[i:i+1] {
				t.Errorf("%s a %s VM: got %q %v, want %q", r, s, a, err, row[i:i+1])
			}
			if (err != nil) != (got == "x") {
				t.Errorf("%s a %s VM: action %q with error %v", r, s, a, err)
			}
		}
	}
}

func TestDecideHeldByJob(t *testing.T) {
	for _, r := range Requests() {
		v := at(Running)
		v.Job = &JobView{ID: id.New(), Kind: JobStop}
		_, err := Decide(v, r)
		if !errs.Is(err, errs.VMBusy) || errs.As(err).Job != v.Job.ID.String() {
			t.Errorf("%s: %v", r, err)
		}
	}
	v := at(Provisioning)
	v.Job.Cancellable = true
	if a, err := Decide(v, Delete); a != DoCancel || err != nil {
		t.Errorf("delete while being created: %q %v", a, err)
	}
}

func TestSpecValidate(t *testing.T) {
	good := func() Spec {
		return Spec{
			Name: "web-1", CPUs: 2, MemoryBytes: 1 << 30, Disks: []DiskSpec{{SizeBytes: 1 << 30}},
			NICs: []NICSpec{{Forwards: []Forward{{Protocol: "tcp", HostPort: 8080, GuestPort: 80}}}},
		}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		break_ func(*Spec)
		code   errs.Code
		field  string
	}{
		"NoCPU":          {func(s *Spec) { s.CPUs = 0 }, errs.OutOfRange, "/cpus"},
		"MillionCPUs":    {func(s *Spec) { s.CPUs = 1e6 }, errs.OutOfRange, "/cpus"},
		"NegativeRAM":    {func(s *Spec) { s.MemoryBytes = -1 << 20 }, errs.OutOfRange, "/memory_bytes"},
		"PebibyteRAM":    {func(s *Spec) { s.MemoryBytes = 1 << 50 }, errs.OutOfRange, "/memory_bytes"},
		"OddRAM":         {func(s *Spec) { s.MemoryBytes++ }, errs.OutOfRange, "/memory_bytes"},
		"NoDiskSize":     {func(s *Spec) { s.Disks[0].SizeBytes = 0 }, errs.OutOfRange, "/disks/0/size_bytes"},
		"OddDisk":        {func(s *Spec) { s.Disks[0].SizeBytes++ }, errs.OutOfRange, "/disks/0/size_bytes"},
		"Name":           {func(s *Spec) { s.Name = "../etc" }, errs.InvalidName, "/name"},
		"Protocol":       {func(s *Spec) { s.NICs[0].Forwards[0].Protocol = "tcp,id=x" }, errs.InvalidField, "/nics/0/forwards/0/protocol"},
		"PrivilegedPort": {func(s *Spec) { s.NICs[0].Forwards[0].HostPort = 22 }, errs.OutOfRange, "/nics/0/forwards/0/host_port"},
		"HostIP":         {func(s *Spec) { s.NICs[0].Forwards[0].HostIP = "a,b" }, errs.InvalidField, "/nics/0/forwards/0/host_ip"},
		"Label":          {func(s *Spec) { s.Labels = map[string]string{"a b": ""} }, errs.InvalidField, "/labels"},
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			c.break_(&s)
			err := s.Validate()
			if !errs.Is(err, c.code) {
				t.Fatalf("got %v, want %s", err, c.code)
			}
			if f := errs.As(err).Fields; len(f) == 0 || f[0].Pointer != c.field {
				t.Errorf("fields %+v, want %s", f, c.field)
			}
		})
	}
}

// A VM whose node was removed by force is failed, whatever was seen of it or was
// under way, and can only be deleted.
func TestLost(t *testing.T) {
	for _, phase := range append(Phases(), "") {
		for _, job := range []string{"", JobCreate, JobStart, JobStop, JobRestart, JobPause, JobResume} {
			v := View{Intent: Intent{ID: id.New(), Name: "web-1", Epoch: 4, PowerOn: true, Lost: &Lost{Node: "n1", At: time.Unix(60, 0)}}}
			if phase != "" {
				v.Observed = &Observation{Epoch: 3, Phase: phase}
			}
			if job != "" {
				v.Job = &JobView{ID: id.New(), Kind: job}
			}
			a := Appear(v)
			if a.State != Failed || !strings.Contains(a.Reason, "n1 was removed by force") || !strings.Contains(a.Reason, "delete it") || !a.Since.Equal(time.Unix(60, 0)) {
				t.Errorf("phase %q job %q: %+v", phase, job, a)
			}
			v.Job = nil
			for _, r := range Requests() {
				action, err := Decide(v, r)
				if r == Delete && (action != DoJob || err != nil) || r != Delete && !errs.Is(err, errs.NodeRemoved) {
					t.Errorf("%s: %q %v", r, action, err)
				}
			}
			v.Job = &JobView{ID: id.New(), Kind: JobDelete}
			if a := Appear(v); a.State != Deleting {
				t.Errorf("while it is deleted: %+v", a)
			}
		}
	}
}
