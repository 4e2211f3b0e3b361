package vm

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
)

func TestChange(t *testing.T) {
	in := Intent{Name: "web", Labels: map[string]string{"a": "b"}, CPUs: 2, MemoryBytes: 1 << 30}
	name, cpus, memory := "db", 4, int64(2<<30)
	labels := map[string]string{}
	for what, c := range map[string]struct {
		change           Change
		differs, resizes bool
	}{
		"nothing":     {Change{}, false, false},
		"the same":    {Change{Name: &in.Name, Labels: &in.Labels, CPUs: &in.CPUs, MemoryBytes: &in.MemoryBytes}, false, false},
		"name":        {Change{Name: &name}, true, false},
		"labels":      {Change{Labels: &labels}, true, false},
		"cpus":        {Change{CPUs: &cpus}, true, true},
		"memory":      {Change{MemoryBytes: &memory}, true, true},
		"all of them": {Change{Name: &name, Labels: &labels, CPUs: &cpus, MemoryBytes: &memory}, true, true},
	} {
		if err := c.change.Validate(); err != nil || c.change.Differs(in) != c.differs || c.change.Resizes(in) != c.resizes {
			t.Errorf("%s: %v %v %v", what, c.change.Differs(in), c.change.Resizes(in), err)
		}
	}
	out := Change{Name: &name, Labels: &labels, CPUs: &cpus, MemoryBytes: &memory}.Apply(in)
	if out.Name != "db" || len(out.Labels) != 0 || out.CPUs != 4 || out.MemoryBytes != 2<<30 || in.Name != "web" {
		t.Errorf("%+v", out)
	}
}

func TestChangeRefuses(t *testing.T) {
	for field, c := range map[string]Change{
		"/name":         {Name: new("Web_1")},
		"/labels":       {Labels: &map[string]string{"a b": "c"}},
		"/cpus":         {CPUs: new(0)},
		"/memory_bytes": {MemoryBytes: new(int64(1<<30 + 1))},
	} {
		err := c.Validate()
		if err == nil || len(errs.As(err).Fields) != 1 || errs.As(err).Fields[0].Pointer != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// What changes the machine waits until nothing runs and nothing would start it
// again; to stop a VM whose guest ended by itself makes it so.
func TestResizeRests(t *testing.T) {
	if _, err := Decide(at(Running), Resize); !errs.Is(err, errs.InvalidState) || !strings.HasSuffix(errs.As(err).Message, "it is running; stop it first") {
		t.Errorf("%v", err)
	}
	for what, touch := range map[string]func(*Intent){
		"wished for": func(in *Intent) { in.PowerOn = true },
		"counted":    func(in *Intent) { in.Reserved = true },
	} {
		for _, s := range []State{Stopped, Failed} {
			v := at(s)
			touch(&v.Intent)
			if _, err := Decide(v, Resize); !errs.Is(err, errs.InvalidState) || !strings.Contains(err.Error(), "stop it first") {
				t.Errorf("%s, %s: %v", s, what, err)
			}
			if a, err := Decide(v, Stop); a != DoJob || err != nil {
				t.Errorf("stop a VM that is %s and %s: %s %v", s, what, a, err)
			}
		}
	}
}
