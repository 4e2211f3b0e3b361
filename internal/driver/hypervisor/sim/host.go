package sim

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/serial"
	"github.com/novacron/novacron/internal/driver/turn"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Options configure a Host; the zero value is a good one.
type Options struct {
	// Clock times the latencies; the system's when nil.
	Clock clock.Clock
	Mode  Mode
	// Latency of transitions in Auto mode.
	Latency Latency
	// Dir, if set, keeps the machines in files there, so that they survive the
	// process as real guests survive an agent.
	Dir string
}

// Host is one simulated machine with its guests. It outlives drivers. It is safe
// for concurrent use.
type Host struct {
	opt Options
	// life ends with Close and ends what waits in the background.
	life context.Context
	end  context.CancelFunc

	turns turn.Table

	mu           sync.Mutex
	guests       map[id.ID]*guest
	faults       map[id.ID]*Faults
	gates        map[id.ID][]*held
	gatesChanged chan struct{}
	ports        map[port]id.ID
	drivers      map[*Driver]struct{}
	// journal is the file that keeps the guests, nil without Options.Dir, and lines are
	// what is in it.
	journal *os.File
	lines   int
}

// port is a claimed forward of the host.
type port struct {
	protocol string
	addr     netip.AddrPort
}

// guest is the last incarnation of one VM. Guarded by Host.mu.
type guest struct {
	status  contract.Status
	asked   bool // a shutdown was asked
	obeying bool // and the guest is about to act on it
	frozen  bool // its file systems are
	ports   []port
	disks   map[id.ID]int64 // sizes, 0 until grown
	limits  contract.Limits
	drive   bool           // is there one whose medium changes?
	medium  string         // what is in it
	fixed   map[id.ID]bool // disks that stay when it moves
	// send is its move to another host, and landing what it waits for; nil for none.
	send    *send
	landing *landing
	// departed is its last departure, and breakOff ends a send under way.
	departed contract.Departure
	patience time.Duration
	means    contract.Adjustment
	breakOff context.CancelFunc
	// warm: is that one to send its disks in rounds, interval apart, and over: until now?
	warm, over bool
	interval   time.Duration
	// arrived is closed when it waits for nothing any more.
	arrived chan struct{}
	serial  *serial.Ring
	console *console
	// done ends when this incarnation does, and takes along what waits for it.
	done context.Context
	stop context.CancelFunc
}

// logKeep is what a simulated console remembers.
const logKeep = 16 << 10

// NewHost makes a host. With Options.Dir it finds the machines left there.
func NewHost(opt Options) (*Host, error) {
	if opt.Clock == nil {
		opt.Clock = clock.System{}
	}
	h := &Host{
		opt:          opt,
		guests:       map[id.ID]*guest{},
		faults:       map[id.ID]*Faults{},
		gates:        map[id.ID][]*held{},
		gatesChanged: make(chan struct{}),
		ports:        map[port]id.ID{},
		drivers:      map[*Driver]struct{}{},
	}
	h.life, h.end = context.WithCancel(context.Background())
	if err := h.load(); err != nil {
		return nil, err
	}
	return h, nil
}

// Close ends what waits in the background. Guests stay as they are, in memory
// and in Options.Dir.
func (h *Host) Close() {
	h.end()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.journal != nil {
		_ = h.journal.Close()
	}
}

// change gives a guest a new phase, keeps it, and queues it for every sink. It is
// called with h.mu held; flush follows once it is released.
func (h *Host) change(g *guest, p vm.Phase, reason string) {
	if g.status.Phase != p {
		g.status.Since = h.opt.Clock.Now()
	}
	g.status.Phase, g.status.Reason = p, reason
	if !p.OnNode() {
		h.free(g)
	}
	h.save(g)
	for d := range h.drivers {
		d.out.Put(g.status)
	}
}

// free lets go of what only a live process holds.
func (h *Host) free(g *guest) {
	for _, p := range g.ports {
		delete(h.ports, p)
	}
	g.ports = nil
	g.stop()
	_ = g.serial.Close()
	g.console = nil
}

// flush delivers queued changes; h.mu is not held.
func (h *Host) flush() {
	h.mu.Lock()
	open := make([]*Driver, 0, len(h.drivers))
	for d := range h.drivers {
		open = append(open, d)
	}
	h.mu.Unlock()
	for _, d := range open {
		d.out.Flush()
	}
}

// strike applies f to a live guest of the VM, as fate, not as a call.
func (h *Host) strike(v id.ID, f func(*guest)) bool {
	h.mu.Lock()
	g, ok := h.guests[v]
	ok = ok && g.status.Phase.OnNode()
	if ok {
		f(g)
	}
	h.mu.Unlock()
	h.flush()
	return ok
}

// Crash ends the VM's process, as if killed from outside. It tells whether there
// was one.
func (h *Host) Crash(v id.ID, reason string) bool {
	return h.strike(v, func(g *guest) { h.change(g, vm.PhaseCrashed, reason) })
}

// PowerOff lets the guest power itself off. It tells whether there was one.
func (h *Host) PowerOff(v id.ID) bool {
	return h.strike(v, func(g *guest) { h.change(g, vm.PhaseExited, "guest powered off") })
}

// BreakDisk pauses the guest the way a failing or full disk does.
func (h *Host) BreakDisk(v id.ID, reason string) bool {
	return h.strike(v, func(g *guest) { h.change(g, vm.PhasePaused, reason) })
}

// Lose makes the VM vanish without a trace or a word: no process, no record.
func (h *Host) Lose(v id.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	g, ok := h.guests[v]
	if ok {
		h.free(g)
		h.forget(v)
	}
	return ok
}

// PowerLoss ends every guest at once, as when the host restarts.
func (h *Host) PowerLoss() {
	h.mu.Lock()
	for _, g := range h.guests {
		if g.status.Phase.OnNode() {
			h.change(g, vm.PhaseCrashed, "the host restarted")
		}
	}
	h.mu.Unlock()
	h.flush()
}

// Leftovers lists everything the host still holds, in a stable order; empty means
// clean.
func (h *Host) Leftovers() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for v, g := range h.guests {
		what := "record"
		if g.status.Phase.OnNode() {
			what = "process"
		}
		out = append(out, fmt.Sprintf("%s of VM %s, epoch %d, %s", what, v, g.status.Epoch, g.status.Phase))
		if g.console != nil {
			out = append(out, fmt.Sprintf("console of VM %s", v))
		}
	}
	for p, v := range h.ports {
		out = append(out, fmt.Sprintf("port %s/%s of VM %s", p.addr, p.protocol, v))
	}
	out = append(out, h.strayRecords()...)
	slices.Sort(out)
	return out
}

// Executing counts the guests with running vCPUs, per VM, over all hosts given.
// Invariant I1 says that no count is above one.
func Executing(hosts ...*Host) map[id.ID]int {
	out := map[id.ID]int{}
	for _, h := range hosts {
		h.mu.Lock()
		for v, g := range h.guests {
			if p := g.status.Phase; p == vm.PhaseRunning || p == vm.PhaseStopping {
				out[v]++
			}
		}
		h.mu.Unlock()
	}
	return out
}

// Doubles lists the VMs that execute more than once over all hosts given.
func Doubles(hosts ...*Host) []id.ID {
	var out []id.ID
	for v, n := range Executing(hosts...) {
		if n > 1 {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b id.ID) int { return cmp.Compare(a.String(), b.String()) })
	return out
}

// bootLines is what a simulated guest says on its console.
func bootLines(m contract.Machine, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "NovaCron simulated firmware\r\n%d vCPU, %d MiB, %d disks, %d interfaces\r\n",
		m.CPUs, m.MemoryBytes>>20, len(m.Disks), len(m.NICs))
	if m.Boot.Cmdline != "" {
		fmt.Fprintf(&b, "Command line: %s\r\n", m.Boot.Cmdline)
	}
	fmt.Fprintf(&b, "booted VM %s at %s\r\nguest ready\r\n%s", m.VM, now.Format(time.RFC3339), prompt)
	return b.String()
}
