package control_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/keeper"
	"github.com/novacron/novacron/internal/driver/hypervisor/sim"
	"github.com/novacron/novacron/internal/store"
)

// The test binary is the keeper of its guests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case keeper.Face:
			os.Exit(keeper.Main(os.Args[2:]))
		case keeper.ExecFace:
			os.Exit(keeper.ExecMain(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// quick is a back-off whose waits a test can afford; a node's word takes longer.
var quick = vm.Backoff{First: time.Millisecond, Most: 4 * time.Millisecond, Tries: 3, Healthy: time.Hour}

// policed is a cluster whose nodes tell what they see, whose jobs run, and whose
// restart policies are looked at.
type policed struct {
	*controltest.Cluster
	t *testing.T
}

func newPoliced(t *testing.T, c *controltest.Cluster) policed {
	t.Helper()
	p := policed{c, t}
	p.serve(c.Nodes[0])
	execute(t, c)
	return p
}

// serve has a node tell what it sees until the test ends.
func (p policed) serve(n *controltest.Node) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { n.Serve(ctx); close(done) }()
	p.t.Cleanup(func() { cancel(); <-done })
}

func (p policed) vm(name string) vm.View {
	p.t.Helper()
	v, err := p.Service.VM(p.t.Context(), name)
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

// look looks once at what ended.
func (p policed) look() control.Restarted {
	p.t.Helper()
	did, err := p.Service.RestartEnded(p.t.Context(), quick)
	if err != nil {
		p.t.Fatal(err)
	}
	return did
}

// looking looks again and again until a VM is as it should be.
func (p policed) looking(name, what string, is func(vm.View) bool) vm.View {
	p.t.Helper()
	until(p.t, what, func() bool { p.look(); return is(p.vm(name)) })
	return p.vm(name)
}

func (p policed) crash(v vm.View) {
	p.t.Helper()
	if !p.Nodes[0].Host.Crash(v.Intent.ID) {
		p.t.Fatal("there is nothing to kill")
	}
}

func running(v vm.View) bool { return vm.Appear(v).State == vm.Running && v.Job == nil }

func (p policed) make(name string, policy vm.RestartPolicy) vm.View {
	p.t.Helper()
	n := p.NewVM(name, true)
	n.Policy.Restart = policy
	n.Disks = n.Disks[:1]
	_, err := p.Service.CreateVM(p.t.Context(), controltest.Admin(), n)
	if err != nil {
		p.t.Fatal(err)
	}
	until(p.t, name+" runs", func() bool { return running(p.vm(name)) })
	return p.vm(name)
}

// A guest whose process is killed is started again, as a new incarnation, once for
// each end, and shows why; one without the policy is not; a stop ends it all.
func TestRestartPolicy(t *testing.T) {
	for kind, cluster := range map[string]func(testing.TB, int) *controltest.Cluster{"Sim": controltest.New, "QEMU": controltest.NewQEMU} {
		t.Run(kind, func(t *testing.T) {
			p := newPoliced(t, cluster(t, 1))
			web, other := p.make("web", vm.RestartOnFailure), p.make("other", vm.RestartNever)
			p.crash(other)
			for n := 1; n <= 2; n++ {
				was := p.vm("web")
				p.crash(web)
				now := p.looking("web", "it runs again", func(v vm.View) bool { return running(v) && v.Intent.Epoch > was.Intent.Epoch })
				if r := now.Restarts; now.Intent.Epoch != was.Intent.Epoch+1 || r.Total != n || r.InARow != n || r.LastAt == nil || r.NextAt != nil || !strings.Contains(r.Reason, "killed by signal 9") {
					t.Errorf("after %d ends: epoch %d, before %d, %+v", n, now.Intent.Epoch, was.Intent.Epoch, r)
				}
				if len(p.Running()) != 1 {
					t.Errorf("run %v", p.Running())
				}
			}
			if v := p.vm("other"); vm.Appear(v).State != vm.Failed || v.Intent.Epoch != other.Intent.Epoch || v.Restarts != (vm.Restarts{}) {
				t.Errorf("without a policy: %+v", v)
			}
			p.asked("web", vm.Stop)
			if did := p.look(); did != (control.Restarted{}) || p.vm("web").Restarts != (vm.Restarts{}) || vm.Appear(p.vm("web")).State != vm.Stopped {
				t.Errorf("after a stop: %+v %+v", did, p.vm("web"))
			}
			p.asked("web", vm.Delete)
			p.asked("other", vm.Delete)
			clean(t, p.Cluster)
		})
	}
}

// asked carries out a request to its end.
func (p policed) asked(name string, r vm.Request) {
	p.t.Helper()
	a, err := p.Service.AskVM(p.t.Context(), controltest.Admin(), name, r, control.Stop{})
	if err != nil {
		p.t.Fatal(err)
	}
	until(p.t, string(r)+" "+name, func() bool {
		j, err := p.Service.Job(p.t.Context(), *a.Job)
		return err == nil && j.FinishedAt != nil
	})
}

// A guest that ends as soon as it starts is started again ever more slowly, given
// up, and told so with the way out; whoever starts it then begins anew.
func TestCrashLoopIsGivenUp(t *testing.T) {
	c := controltest.New(t, 1)
	p := newPoliced(t, c)
	web := p.make("web", vm.RestartOnFailure)
	host := c.Nodes[0].Host.(*controltest.SimHost)
	host.SetFaults(web.Intent.ID, sim.Faults{CrashAfterLaunch: true})
	p.crash(web)
	v := p.looking("web", "it is given up", func(v vm.View) bool { return v.Restarts.GaveUpAt != nil && v.Job == nil })
	p.givenUp(v, web)
	host.ClearFaults()
	p.asked("web", vm.Start)
	if v := p.vm("web"); !running(v) || v.Restarts != (vm.Restarts{}) {
		t.Errorf("started by somebody: %+v", v)
	}
	p.crash(v)
	p.looking("web", "it runs again", func(v vm.View) bool { return running(v) && v.Restarts.Total == 1 })
	jobs, recorded := 0, 0
	err := c.DB.App.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM jobs WHERE created_by = 'vm-restarts'),
		(SELECT count(*) FROM audit_log WHERE principal = 'vm-restarts' AND action = 'vm.start')`).Scan(&jobs, &recorded)
	if err != nil || jobs != quick.Tries+1 || recorded != jobs {
		t.Errorf("%d jobs and %d audit records of %d restarts: %v", jobs, recorded, quick.Tries+1, err)
	}
	p.asked("web", vm.Delete)
	clean(t, c)
}

// givenUp checks what a VM shows that is not started again any more.
func (p policed) givenUp(v, was vm.View) {
	p.t.Helper()
	r, a := v.Restarts, vm.Appear(v)
	if r.Total != quick.Tries || r.InARow != quick.Tries || r.NextAt != nil || v.Intent.Epoch != was.Intent.Epoch+3 {
		p.t.Errorf("epoch %d, at first %d, %+v", v.Intent.Epoch, was.Intent.Epoch, r)
	}
	if a.State != vm.Failed || !strings.Contains(a.Reason, "3 times in a row") || !strings.Contains(a.Reason, "look at its log") {
		p.t.Errorf("appears as %+v", a)
	}
	for range 3 {
		if did := p.look(); did != (control.Restarted{}) {
			p.t.Errorf("after it was given up: %+v", did)
		}
	}
}

// A real guest that does nothing but fault and reset its board is a crash loop, too.
func TestFaultingGuestIsGivenUp(t *testing.T) {
	fault := append(append([]byte{0xfa, 0x2e, 0x0f, 0x01, 0x1e, 0x10, 0x7c, 0xcc}, make([]byte, 502)...), 0x55, 0xaa) // cli; lidt zeroes; int3
	c := controltest.NewQEMUOf(t, 1, fault)
	p := newPoliced(t, c)
	n := p.NewVM("web", true)
	n.Policy.Restart = vm.RestartAlways
	if _, err := p.Service.CreateVM(t.Context(), controltest.Admin(), n); err != nil {
		t.Fatal(err)
	}
	until(t, "it ran and ended", func() bool {
		v := p.vm("web")
		return v.Job == nil && v.Observed != nil && v.Observed.Phase == vm.PhaseCrashed
	})
	was := p.vm("web")
	v := p.looking("web", "it is given up", func(v vm.View) bool { return v.Restarts.GaveUpAt != nil && v.Job == nil })
	p.givenUp(v, was)
	if !strings.Contains(v.Restarts.Reason, "reset itself") {
		t.Errorf("%+v", v.Restarts)
	}
	p.asked("web", vm.Delete)
	clean(t, c)
}

// A restart that cannot be made counts as one, and does not take back the wish; one
// whose guest powered itself off is restarted by always alone; nothing is done while
// the node is away, however long.
func TestRestartsThatFail(t *testing.T) {
	c := controltest.New(t, 1)
	p := newPoliced(t, c)
	web := p.make("web", vm.RestartAlways)
	host := c.Nodes[0].Host.(*controltest.SimHost)
	host.SetFaults(web.Intent.ID, sim.Faults{Launch: &sim.Failure{Times: 2, Message: "no memory here"}})
	host.PowerOff(web.Intent.ID)
	until(t, "its end is known", func() bool { return vm.Appear(p.vm("web")).State != vm.Running })
	v := p.looking("web", "the third restart succeeds", running)
	if v.Restarts.Total != 3 || !strings.Contains(v.Restarts.Reason, "no memory here") {
		t.Errorf("%+v", v.Restarts)
	}
	if err := update(t, c, "web", vm.Change{Policy: vm.PolicyChange{Restart: new(vm.RestartOnFailure)}}); err != nil {
		t.Fatal(err)
	}
	host.PowerOff(web.Intent.ID)
	until(t, "it powered itself off", func() bool { return vm.Appear(p.vm("web")).State == vm.Stopped })
	if did := p.look(); did != (control.Restarted{}) {
		t.Errorf("a power-off is no failure: %+v", did)
	}
	c.Nodes[0].SetDown(true)
	if err := update(t, c, "web", vm.Change{Policy: vm.PolicyChange{Restart: new(vm.RestartAlways)}}); err != nil {
		t.Fatal(err)
	}
	if did := p.look(); did != (control.Restarted{}) {
		t.Errorf("its node is away: %+v", did)
	}
	c.Nodes[0].SetDown(false)
	p.looking("web", "it runs once its node is back", running)
	p.asked("web", vm.Delete)
	clean(t, c)
}

// Servers that look at the same end at once start it once.
func TestRestartsRaced(t *testing.T) {
	c := controltest.New(t, 1)
	p := newPoliced(t, c)
	web := p.make("web", vm.RestartOnFailure)
	p.crash(web)
	until(t, "its end is known", func() bool { return vm.Appear(p.vm("web")).State == vm.Failed })
	started := make(chan int)
	for range 8 {
		go func() {
			n := 0
			for range 20 {
				did, err := p.Service.RestartEnded(context.Background(), quick)
				if err != nil {
					t.Error(err)
				}
				n += did.Started
			}
			started <- n
		}()
	}
	sum := 0
	for range 8 {
		sum += <-started
	}
	v := p.looking("web", "it runs", running)
	if sum > 1 || v.Restarts.Total != 1 || v.Intent.Epoch != web.Intent.Epoch+1 {
		t.Errorf("%d starts: %+v", sum, v)
	}
	if vs, _, err := c.Service.VMs(t.Context(), store.Page{Limit: 10}); err != nil || len(vs) != 1 {
		t.Errorf("%d %v", len(vs), err)
	}
	p.asked("web", vm.Delete)
	clean(t, c)
}
