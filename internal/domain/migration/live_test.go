package migration

import (
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

func able(n *node.Node) {
	n.Inventory.LiveMigration, n.Inventory.WarmMigration = true, true
	n.Inventory.CPUFlags = "fpu sse2 avx2 avx512f"
}

func running(on node.Node, change ...func(*vm.View)) vm.View {
	return stopped(on, append([]func(*vm.View){func(v *vm.View) {
		v.Observed.Phase = vm.PhaseRunning
		v.Intent.PowerOn, v.Intent.Reserved = true, true
	}}, change...)...)
}

func paused(v *vm.View) { v.Observed.Phase = vm.PhasePaused }

func ownCPU(v *vm.View) { v.Intent.Hardware.CPU = vm.CPUHost }

// A VM that executes needs more of its target than one at rest: room to run now, the same
// acceleration, a hypervisor that is not older, and the processor that its guest knows.
func TestPlanLive(t *testing.T) {
	for name, c := range map[string]struct {
		vm   func(*vm.View)
		node func(*node.Node)
		why  string // why the other node is rejected; empty for a candidate
	}{
		"Suits":             {},
		"Paused":            {vm: paused},
		"TakesNone":         {node: func(n *node.Node) { n.Inventory.LiveMigration = false }, why: "does not take guests that execute"},
		"NoCPUsNow":         {node: func(n *node.Node) { n.Used.CPUs = 15 }, why: "1 CPUs free"},
		"NoMemoryNow":       {node: func(n *node.Node) { n.Used.MemoryBytes = 61 * unit.GiB }, why: "3 GiB memory free"},
		"NoDisk":            {node: func(n *node.Node) { n.Used.DiskBytes = n.Capacity.DiskBytes }, why: "10 GiB needed"},
		"OlderHypervisor":   {node: func(n *node.Node) { n.Inventory.HypervisorVersion = "7.2.21" }, why: "not older"},
		"NewerHypervisor":   {node: func(n *node.Node) { n.Inventory.HypervisorVersion = "10.0.2" }},
		"OtherHypervisor":   {node: func(n *node.Node) { n.Inventory.Hypervisor = "other" }, why: "has the hypervisor other"},
		"OtherAcceleration": {node: func(n *node.Node) { n.Inventory.Acceleration = "tcg" }, why: "it runs under kvm"},
		"OwnProcessor":      {vm: ownCPU},
		"OtherProcessor":    {vm: ownCPU, node: func(n *node.Node) { n.Inventory.CPUModel = "EPYC 2" }, why: "another processor"},
		"FewerFeatures":     {vm: ownCPU, node: func(n *node.Node) { n.Inventory.CPUFlags = "sse2 fpu avx2" }, why: "lacks what the processor had on which it runs: avx512f"},
		"MoreFeatures":      {vm: ownCPU, node: func(n *node.Node) { n.Inventory.CPUFlags += " new" }},
		"AllFeatures":       {vm: func(v *vm.View) { v.Intent.Hardware.CPU = vm.CPUMax }, node: func(n *node.Node) { n.Inventory.CPUModel = "EPYC 2" }, why: "another processor"},
		"NamedProcessor":    {node: func(n *node.Node) { n.Inventory.CPUModel, n.Inventory.CPUFlags = "EPYC 2", "fpu" }},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := host("a", able), host("b", able)
			if c.node != nil {
				c.node(&b)
			}
			v := running(a)
			if c.vm != nil {
				c.vm(&v)
			}
			p, err := PlanOf(v, []node.Node{a, b}, "")
			switch {
			case err != nil:
				t.Fatal(err)
			case p.Kind != Live:
				t.Errorf("it would go %s", p.Kind)
			case c.why == "" && (p.Fits() != nil || p.Target().Name != "b"):
				t.Errorf("%+v %v", p, p.Fits())
			case c.why != "" && (!errs.Is(p.Fits(), errs.NoNodeFits) || !strings.Contains(p.Fits().Error(), c.why)):
				t.Errorf("%v", p.Fits())
			}
		})
	}
}

// Where processors are emulated, the largest model is another with each version.
func TestPlanLiveOfAnEmulatedProcessor(t *testing.T) {
	emulates := func(n *node.Node) { able(n); n.Inventory.Acceleration = "tcg" }
	a, b, c := host("a", emulates), host("b", emulates), host("c", emulates)
	b.Inventory.HypervisorVersion = "10.0.2"
	p, err := PlanOf(running(a, func(v *vm.View) { v.Intent.Hardware.CPU = vm.CPUMax }), []node.Node{a, b, c}, "")
	if err != nil || len(p.Ranked) != 1 || p.Target().Name != "c" || !strings.Contains(p.Rejected[1].Reasons[0], "CPU model max") {
		t.Errorf("%+v %v", p, err)
	}
}

// What is asked for and does not suit what the VM is, and what does not move while it
// executes, is refused with the way out.
func TestPlanLiveRefuses(t *testing.T) {
	a, b := host("a", able), host("b", able)
	for name, c := range map[string]struct {
		v    vm.View
		kind Kind
		say  string
	}{
		"ColdWhileItRuns":   {v: running(a), kind: Cold, say: "it is running; stop it first"},
		"ColdWhilePaused":   {v: running(a, paused), kind: Cold, say: "it is paused; stop it first"},
		"LiveAtRest":        {v: stopped(a), kind: Live, say: "it is stopped"},
		"LiveWhenSuspended": {v: stopped(a, suspendedIt), kind: Live, say: "it is suspended"},
		"Starting":          {v: running(a, func(v *vm.View) { v.Observed.Phase = vm.PhaseStarting }), say: "wait until it runs"},
		"Stopping":          {v: running(a, func(v *vm.View) { v.Observed.Phase = vm.PhaseStopping }), say: "wait until it runs"},
		"Incoming":          {v: running(a, func(v *vm.View) { v.Observed.Phase = vm.PhaseIncoming }), say: "wait until it runs"},
		"Frozen":            {v: running(a, func(v *vm.View) { v.Observed.Frozen = &vm.Frozen{} }), say: "thaw them first"},
		"Micro":             {v: running(a, func(v *vm.View) { v.Intent.Hardware.Type = vm.MachineMicro }), say: "stop it first"},
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := PlanFor(c.v, []node.Node{a, b}, Request{Kind: c.kind}, Changes{}); !errs.Is(err, errs.InvalidState) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("%+v %v", p, err)
			}
		})
	}
	cannot := host("cannot")
	if _, err := PlanOf(running(cannot), []node.Node{cannot, b}, ""); err == nil || !strings.Contains(err.Error(), "node cannot does not move guests that execute; suspend it first") {
		t.Errorf("from a node that cannot: %v", err)
	}
}

// A prediction says at which rate, and does not tell what nobody knows.
func TestPrediction(t *testing.T) {
	fast := func(mbps int64) func(*node.Node) {
		return func(n *node.Node) {
			able(n)
			n.Inventory.Interfaces = []node.Interface{{Up: false, Speed: 100_000}, {Up: true, Speed: mbps}, {Up: true, Speed: 100}}
		}
	}
	a, b := host("a", fast(8000)), host("b", fast(800)) // 100 MB/s
	const disks, memory = 10 * unit.GiB, 4 * unit.GiB
	whole := seconds(disks+memory, 100_000_000)
	for name, c := range map[string]struct {
		options  Options
		dirty    int64
		want     Convergence
		duration time.Duration
		rate     int64
		note     string
	}{
		"Unknown":   {want: Unknowable, duration: whole, rate: 100_000_000, note: "is not known"},
		"Bounded":   {options: Options{BytesPerSecond: 50_000_000}, want: Unknowable, duration: 2 * whole, rate: 50_000_000, note: "is not known"},
		"Converges": {dirty: 50_000_000, want: Converging, duration: seconds(disks+2*memory, 100_000_000), rate: 100_000_000},
		"Diverges":  {options: Options{OnStall: "wait"}, dirty: 200_000_000, want: Diverging, duration: whole, rate: 100_000_000, note: "does not come to its end"},
		"Throttled": {dirty: 200_000_000, want: Slowed, duration: whole, rate: 100_000_000, note: "slowed down until"},
		"Slowed":    {options: Options{AutoConverge: true}, dirty: 200_000_000, want: Slowed, duration: whole, rate: 100_000_000, note: "slowed down until"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := PlanFor(running(a), []node.Node{a, b}, Request{Options: c.options}, ChangedWhenMoved(c.dirty))
			if err != nil {
				t.Fatal(err)
			}
			if p.Bytes != disks+memory || p.Converges != c.want || p.Rate != c.rate || p.Downtime != DefaultDowntime || p.RateWhy == "" {
				t.Errorf("%+v", p.Prediction)
			}
			if d := p.Duration - c.duration; d < -time.Second || d > time.Second {
				t.Errorf("takes %v, want %v", p.Duration, c.duration)
			}
			if c.note != "" && !strings.Contains(strings.Join(p.Notes, "\n"), c.note) {
				t.Errorf("notes: %q", p.Notes)
			}
		})
	}
	p, err := PlanOf(stopped(a), []node.Node{a, b}, "")
	if err != nil || p.Bytes != disks || p.Downtime != p.Duration || p.Converges != "" {
		t.Errorf("cold: %+v %v", p, err)
	}
	p, err = PlanOf(running(a), []node.Node{a, host("c", able)}, "")
	if err != nil || p.Rate != assumedRate || !strings.Contains(p.RateWhy, "assumed") {
		t.Errorf("between networks that nobody knows: %+v %v", p, err)
	}
}

// What was sampled a moment ago counts, and the plan says when and where from; a guest that
// changes nothing is known to come to its end.
func TestPredictionBySample(t *testing.T) {
	a, b := host("a", able), host("b", able)
	at := time.Unix(1_790_000_000, 0)
	for rate, want := range map[int64]Convergence{0: Converging, assumedRate / 2: Converging, 2 * assumedRate: Slowed} {
		p, err := PlanFor(running(a), []node.Node{a, b}, Request{}, Changes{DirtyRate: rate, From: Sampled, SampledAt: at})
		if err != nil || p.Converges != want || p.DirtyRate != rate || p.From != Sampled || !p.SampledAt.Equal(at) {
			t.Errorf("%+v %v", p.Prediction, err)
		}
		if said := strings.Contains(strings.Join(p.Notes, "\n"), "of memory now"); said != (want == Slowed) {
			t.Errorf("%q", p.Notes)
		}
	}
	if ChangedWhenMoved(0).Known() || ChangedWhenMoved(5).From != LastMove {
		t.Error("the last move tells wrongly")
	}
}

// A guest whose hypervisor does not see all that it writes is halted while its memory is
// sent; the plan says so, and for how long, and has the patience for it.
func TestPlanOfAnUntrackedGuest(t *testing.T) {
	emulates := func(version string) func(*node.Node) {
		return func(n *node.Node) {
			able(n)
			n.Inventory.Acceleration, n.Inventory.HypervisorVersion = "tcg", version
		}
	}
	for version, untracked := range map[string]bool{"7.2.22": true, "8.2.7": true, "9.0.0": false, "10.0.2": false} {
		a, b := host("a", emulates(version)), host("b", emulates(version))
		p, err := PlanFor(running(a), []node.Node{a, b}, Request{}, Changes{})
		if err != nil {
			t.Fatal(err)
		}
		long := seconds(4*unit.GiB, p.Rate)
		if (p.Downtime == long) != untracked || (p.Converges == Converging) != untracked || (p.Options.Patience == 4*long) != untracked ||
			strings.Contains(strings.Join(p.Notes, "\n"), "does not see all that they write") != untracked {
			t.Errorf("%s: %+v %+v %q", version, p.Prediction, p.Options, p.Notes)
		}
		p, err = PlanFor(running(a), []node.Node{a, b}, Request{Options: Options{Patience: 5 * time.Second}}, Changes{})
		if err != nil || p.Options.Patience != 5*time.Second || strings.Contains(strings.Join(p.Notes, "\n"), "it will be given up") != untracked {
			t.Errorf("%s: %+v %q %v", version, p.Options, p.Notes, err)
		}
	}
}

// Connections of a network that is a node's own end there, and forwarded ports stay with
// their node.
func TestNotesOfALiveMove(t *testing.T) {
	a, b := host("a", able), host("b", able)
	v := running(a, func(v *vm.View) {
		v.NICs = []vm.NIC{{Forwards: []vm.Forward{{Protocol: "tcp", HostPort: 8080, GuestPort: 80}}}, {Bridge: "br0"}}
	})
	p, err := PlanOf(v, []node.Node{a, b}, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"connections through its 1 user-mode interfaces end", "does not move while one is taken", "joins the bridge br0"} {
		if !strings.Contains(strings.Join(p.Notes, "\n"), want) {
			t.Errorf("%q is not among %q", want, p.Notes)
		}
	}
}

func TestRequestIsChecked(t *testing.T) {
	for name, c := range map[string]struct {
		r     Request
		code  errs.Code
		field string
	}{
		"Nothing":       {},
		"WAN":           {r: Request{Profile: ProfileWAN, Kind: Live}},
		"AnyProfile":    {r: Request{Profile: "lan"}, code: errs.InvalidField, field: "/profile"},
		"AnyKind":       {r: Request{Kind: "lukewarm"}, code: errs.InvalidField, field: "/kind"},
		"ColdOptions":   {r: Request{Kind: Cold, Options: Options{Channels: 2}}, code: errs.InvalidField, field: "/kind"},
		"ColdProfile":   {r: Request{Kind: Cold, Profile: ProfileWAN}, code: errs.InvalidField, field: "/kind"},
		"Reason":        {r: Request{Reason: strings.Repeat("x", 501)}, code: errs.TooLarge, field: "/reason"},
		"Priority":      {r: Request{Priority: 101}, code: errs.OutOfRange, field: "/priority"},
		"SlowRate":      {r: Request{Options: Options{BytesPerSecond: 1000}}, code: errs.OutOfRange, field: "/options/bytes_per_second"},
		"NegativeRate":  {r: Request{Options: Options{BytesPerSecond: -1}}, code: errs.OutOfRange, field: "/options/bytes_per_second"},
		"LongDowntime":  {r: Request{Options: Options{Downtime: time.Minute}}, code: errs.OutOfRange, field: "/options/downtime_ms"},
		"NoDowntime":    {r: Request{Options: Options{Downtime: time.Microsecond}}, code: errs.OutOfRange, field: "/options/downtime_ms"},
		"ShorterMost":   {r: Request{Options: Options{Downtime: time.Second, MaxDowntime: time.Millisecond}}, code: errs.OutOfRange, field: "/options/max_downtime_ms"},
		"LongestMost":   {r: Request{Options: Options{MaxDowntime: time.Minute}}, code: errs.OutOfRange, field: "/options/max_downtime_ms"},
		"AnyStep":       {r: Request{Options: Options{OnStall: "post_copy"}}, code: errs.InvalidField, field: "/options/on_stall"},
		"ManyChannels":  {r: Request{Options: Options{Channels: 17}}, code: errs.OutOfRange, field: "/options/channels"},
		"Gzip":          {r: Request{Options: Options{Compression: "gzip"}}, code: errs.InvalidField, field: "/options/compression"},
		"ShortPatience": {r: Request{Options: Options{Patience: time.Millisecond}}, code: errs.OutOfRange, field: "/options/patience_seconds"},
		"Warm":          {r: Request{Kind: Warm, Profile: ProfileWAN, Options: Options{Cutover: Manual, CutoverAt: time.Unix(1, 0), Interval: time.Minute}}},
		"LiveCutover":   {r: Request{Options: Options{Cutover: Manual}}, code: errs.InvalidField, field: "/kind"},
		"ColdInterval":  {r: Request{Options: Options{Interval: time.Minute}}, code: errs.InvalidField, field: "/kind"},
		"WarmDowntime":  {r: Request{Kind: Warm, Options: Options{Downtime: time.Second}}, code: errs.InvalidField, field: "/kind"},
		"AnyCutover":    {r: Request{Kind: Warm, Options: Options{Cutover: "soon"}}, code: errs.InvalidField, field: "/options/cutover"},
		"AutoAtATime":   {r: Request{Kind: Warm, Options: Options{Cutover: Automatic, CutoverAt: time.Unix(1, 0)}}, code: errs.InvalidField, field: "/options/cutover"},
		"ShortInterval": {r: Request{Kind: Warm, Options: Options{Interval: time.Millisecond}}, code: errs.OutOfRange, field: "/options/interval_seconds"},
		"LongTimeout":   {r: Request{Options: Options{Timeout: 1000 * time.Hour}}, code: errs.OutOfRange, field: "/options/timeout_seconds"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.r.Validate()
			if c.code == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errs.Is(err, c.code) || len(errs.As(err).Fields) != 1 || errs.As(err).Fields[0].Pointer != c.field {
				t.Errorf("%v %+v", err, errs.As(err))
			}
		})
	}
}

// A profile fills in what is not given; nothing is left open.
func TestOptionsAreComplete(t *testing.T) {
	if got, want := (Options{}).complete(""), (Options{Downtime: DefaultDowntime, MaxDowntime: time.Second, OnStall: DefaultSteps, Channels: 2, Patience: DefaultPatience}); got != want {
		t.Errorf("%+v", got)
	}
	want := Options{Downtime: 2 * time.Second, MaxDowntime: 2 * time.Second, OnStall: DefaultSteps, Channels: 2, Patience: DefaultPatience, Compression: CompressionZstd, AutoConverge: true}
	if got := (Options{Downtime: 2 * time.Second}).complete(ProfileWAN); got != want {
		t.Errorf("%+v", got)
	}
	if got := (Options{MaxDowntime: 100 * time.Millisecond}).complete(""); got.Downtime != got.MaxDowntime {
		t.Errorf("%+v", got)
	}
	if got := want.GiveUp(0); got != 10*time.Minute {
		t.Errorf("nothing is given up after %v", got)
	}
	if slow := (Options{BytesPerSecond: unit.MiB}).GiveUp(100 * unit.GiB); slow <= want.GiveUp(100*unit.GiB) || slow > MaxTimeout {
		t.Errorf("a slow one is given up after %v", slow)
	}
	if got := (Options{Timeout: time.Minute}).GiveUp(unit.TiB); got != time.Minute {
		t.Errorf("given up after %v", got)
	}
}
