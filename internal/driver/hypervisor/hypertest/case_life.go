package hypertest

import (
	"context"
	"slices"
	"sync"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func lifeCases() []testCase {
	return []testCase{
		{"Describe tells the hypervisor and why it is not kvm", describes},
		{"Launch returns once the guest executes", launches},
		{"Launch again for the running epoch changes nothing", launchesTwice},
		{"Launch many times at once makes one process", launchesAtOnce},
		{"Launch of an impossible machine leaves nothing", refusesMachines},
		{"Launch of a cancelled caller leaves no process", launchCancelled},
		{"Launch with a taken port leaves nothing", portTaken},
		{"Pause and Resume, each twice", pauses},
		{"The sink sees changes in order", sinkOrder},
		{"Guests do not disturb each other", twoGuests},
	}
}

func describes(b *bench) {
	d, err := b.Driver().Describe(b.ctx)
	if err != nil {
		b.Fatal(err)
	}
	if d.Hypervisor == "" || d.Version == "" || d.Acceleration.Kind == "" {
		b.Fatalf("describe says too little: %+v", d)
	}
	if (d.Acceleration.Kind == "kvm") != (d.Acceleration.Reason == "") {
		b.Fatalf("a reason belongs to everything but kvm: %+v", d.Acceleration)
	}
}

func launches(b *bench) {
	m := b.Machine(b.T, Polite)
	s := b.start(m)
	if got := b.inspect(m.VM); !cmp.Equal(got, s) {
		b.Fatalf("inspect differs from launch:\n%s", cmp.Diff(s, got))
	}
	b.await(m.Ref, vm.PhaseRunning)
	b.ready(m.VM)
	b.clean(m)
}

func launchesTwice(b *bench) {
	m := b.Machine(b.T, Polite)
	first := b.start(m)
	if second := b.start(m); second.PID != first.PID || !second.Since.Equal(first.Since) {
		b.Fatalf("the second launch gave %+v, the first %+v", second, first)
	}
	b.clean(m)
}

func launchesAtOnce(b *bench) {
	m := b.Machine(b.T, Polite)
	var mu sync.Mutex
	pids := map[int]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := b.Driver().Launch(b.ctx, m)
			if err != nil {
				b.Errorf("launch: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			pids[s.PID] = true
		})
	}
	wg.Wait()
	if len(pids) != 1 {
		b.Fatalf("the launches gave %d processes: %v", len(pids), pids)
	}
	b.clean(m)
}

func refusesMachines(b *bench) {
	for name, spoil := range map[string]func(*contract.Machine){
		"no vCPU":           func(m *contract.Machine) { m.CPUs = 0 },
		"half a MiB":        func(m *contract.Machine) { m.MemoryBytes += 512 << 10 },
		"no epoch":          func(m *contract.Machine) { m.Epoch = 0 },
		"nothing to boot":   func(m *contract.Machine) { m.Disks, m.Boot = nil, contract.Boot{} },
		"unknown format":    func(m *contract.Machine) { m.Disks = withFormat(m.Disks, "vmdk") },
		"newline in MAC":    func(m *contract.Machine) { m.NICs = []contract.NIC{{ID: m.VM, MAC: "52:54:00:00:00:0\n"}} },
		"relative kernel":   func(m *contract.Machine) { m.Boot = contract.Boot{Kernel: "vmlinuz"} },
		"NUL in the kernel": func(m *contract.Machine) { m.Boot = contract.Boot{Kernel: "/k", Cmdline: "a\x00b"} },
	} {
		m := b.Machine(b.T, Polite)
		spoil(&m)
		if _, err := b.Driver().Launch(b.ctx, m); err == nil || errs.CodeOf(err) == errs.Internal {
			b.Errorf("%s: launch gave %v, want a refusal with a code", name, err)
		}
	}
	b.clean()
}

func withFormat(ds []contract.Disk, f string) []contract.Disk {
	out := slices.Clone(ds)
	for i := range out {
		out[i].File.Format = f
	}
	if len(out) == 0 {
		out = []contract.Disk{{File: contract.File{Path: "/disk", Format: f}}}
	}
	return out
}

func launchCancelled(b *bench) {
	m := b.Machine(b.T, Polite)
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	if s, err := b.Driver().Launch(ctx, m); err == nil {
		b.Fatalf("a cancelled launch gave %+v", s)
	}
	if s, err := b.Driver().Inspect(b.ctx, m.VM); err == nil && s.Phase.OnNode() {
		b.Fatalf("a cancelled launch left %+v", s)
	}
	b.start(m)
	b.clean(m)
}

func portTaken(b *bench) {
	if !b.Driver().Capabilities().UserNetwork {
		b.wantRefusedNetwork()
		b.Skip("no user-mode network")
	}
	forward := func(m contract.Machine, port int) contract.Machine {
		m.NICs = []contract.NIC{{ID: m.VM, MAC: "52:54:00:12:34:56", Forwards: []contract.Forward{
			{Protocol: "tcp", HostPort: port, GuestPort: 22},
		}}}
		return m
	}
	port := b.FreePort(b.T)
	first, second := forward(b.Machine(b.T, Polite), port), forward(b.Machine(b.T, Polite), port)
	b.start(first)
	_, err := b.Driver().Launch(b.ctx, second)
	b.wantCode(err, errs.InUse, "launch with a taken port")
	if _, err := b.Driver().Inspect(b.ctx, second.VM); !errs.Is(err, errs.NotFound) {
		b.Fatalf("the refused launch left something: %v", err)
	}
	b.kill(first.Ref)
	b.start(second)
	b.clean(first, second)
}

func (b *bench) wantRefusedNetwork() {
	m := b.Machine(b.T, Polite)
	m.NICs = []contract.NIC{{ID: m.VM, MAC: "52:54:00:12:34:56"}}
	_, err := b.Driver().Launch(b.ctx, m)
	b.wantCode(err, errs.Unsupported, "launch with an interface")
}

func pauses(b *bench) {
	m := b.launch(Polite)
	if !b.Driver().Capabilities().Pause {
		_, err := b.Driver().Pause(b.ctx, m.Ref)
		b.wantCode(err, errs.Unsupported, "pause")
		b.Skip("no pause")
	}
	for _, step := range []struct {
		call func(context.Context, contract.Ref) (contract.Status, error)
		want vm.Phase
	}{
		{b.Driver().Resume, vm.PhaseRunning},
		{b.Driver().Pause, vm.PhasePaused},
		{b.Driver().Pause, vm.PhasePaused},
		{b.Driver().Resume, vm.PhaseRunning},
		{b.Driver().Resume, vm.PhaseRunning},
	} {
		s, err := step.call(b.ctx, m.Ref)
		if err != nil || s.Phase != step.want {
			b.Fatalf("got %+v, %v, want %s", s, err, step.want)
		}
		if got := b.inspect(m.VM); got.Phase != step.want {
			b.Fatalf("inspect says %s, want %s", got.Phase, step.want)
		}
	}
	b.clean(m)
}

func sinkOrder(b *bench) {
	m := b.launch(Polite)
	want := []vm.Phase{vm.PhaseStarting, vm.PhaseRunning}
	if b.Driver().Capabilities().Pause {
		if _, err := b.Driver().Pause(b.ctx, m.Ref); err != nil {
			b.Fatal(err)
		}
		if _, err := b.Driver().Resume(b.ctx, m.Ref); err != nil {
			b.Fatal(err)
		}
		want = append(want, vm.PhasePaused, vm.PhaseRunning)
	}
	b.kill(m.Ref)
	b.await(m.Ref, vm.PhaseExited)
	want = append(want, vm.PhaseExited)
	if got := b.phases(m.VM); !slices.Equal(got, want) {
		b.Fatalf("the sink saw %v, want %v", got, want)
	}
	b.clean(m)
}

func twoGuests(b *bench) {
	one, two := b.launch(Polite), b.launch(Polite)
	b.kill(one.Ref)
	if s := b.inspect(two.VM); s.Phase != vm.PhaseRunning {
		b.Fatalf("killing one guest left the other %+v", s)
	}
	b.clean(one, two)
}
