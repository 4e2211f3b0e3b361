package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/sim"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
)

// stranger is a driver whose guests say what a test says, and counts how often they are
// asked.
type stranger struct {
	asking
	says  func(n int64) hypervisor.Glance
	asked *atomic.Int64
}

// Glance implements hypervisor.Guester.
func (s stranger) Glance(context.Context, hypervisor.Ref) (hypervisor.Glance, error) {
	return s.says(s.asked.Add(1)), nil
}

// asking is a driver that knows of its guests what they say.
type asking struct {
	hypervisor.Driver
	hypervisor.Guester
}

// pass lets time pass, as the agent's chores see it.
func (b *bench) pass(c *clock.Fake, total time.Duration) {
	b.t.Helper()
	for range int(total / glanceEvery) {
		c.Advance(glanceEvery)
		b.agent.glance(b.t.Context())
	}
}

func (b *bench) addresses() []string {
	if r := b.agent.reports.newest(b.vm); r != nil && r.Guest != nil {
		return r.Guest.Addresses
	}
	return nil
}

func (b *bench) seq() int64 { return int64(b.agent.reports.newest(b.vm).Seq) }

func strangerBench(t *testing.T, says func(n int64) hypervisor.Glance) (*bench, *clock.Fake, *atomic.Int64) {
	t.Helper()
	b, c, asked := newBench(t), clock.NewFake(), new(atomic.Int64)
	b.clock, b.wrap = c, func(d *sim.Driver) hypervisor.Driver { return stranger{asking{d, d}, says, asked} }
	b.restart()
	return b, c, asked
}

// A guest tells its addresses once, soon after it started, or, where that is known before,
// with its start; they go with it.
func TestAddressesAreToldOnce(t *testing.T) {
	b, c := newBench(t), clock.NewFake()
	b.clock = c
	b.restart()
	b.launch()
	foretold, seq := b.addresses(), b.seq()
	b.pass(c, time.Hour)
	if len(foretold) != 1 || netip.MustParseAddr(foretold[0]).As4()[0] != 10 || b.seq() != seq {
		t.Fatalf("%v, and then %d reports", foretold, b.seq()-seq)
	}
	b.wrap = func(d *sim.Driver) hypervisor.Driver { return asking{d, d} }
	b.restart() // an agent that has to ask
	if b.addresses() != nil {
		t.Errorf("nobody asked yet: %v", b.addresses())
	}
	b.pass(c, 10*time.Second)
	if seq = b.seq(); !slices.Equal(b.addresses(), foretold) {
		t.Errorf("once it was asked: %v", b.addresses())
	}
	b.pass(c, time.Hour)
	if b.seq() != seq {
		t.Error("the same was reported again")
	}
	if r, err := b.send("off", &nodelink.PowerOff{}); err != nil || r.Guest != nil {
		t.Errorf("addresses of a guest that is gone: %+v %v", r, err)
	}
	b.head.OwnerEpoch, b.head.OpSeq, b.head.Operation = 2, 2, id.New()
	if r := b.launch(); r.Guest != nil {
		t.Errorf("addresses of the incarnation before: %+v", r)
	}
}

// A stranger that says another thing each time it is asked causes no more than a few
// reports an hour, and is asked no more often than others.
func TestChattyGuestIsNotWritten(t *testing.T) {
	b, c, asked := strangerBench(t, func(n int64) hypervisor.Glance {
		var a []netip.Prefix
		for i := range 500 {
			a = append(a, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.1/24", n%250, i%250)))
		}
		return hypervisor.Glance{Agent: hypervisor.AgentConnected, Told: true, Interfaces: []hypervisor.GuestInterface{{Addresses: a}}}
	})
	b.launch()
	seq := b.seq()
	b.pass(c, 2*time.Hour)
	if n := b.seq() - seq; n < changeBurst || n > changeBurst+12 {
		t.Errorf("%d reports in two hours", n)
	}
	if n := asked.Load(); n > 170 {
		t.Errorf("it was asked %d times in two hours", n)
	}
	if n := len(b.addresses()); n != 16 {
		t.Errorf("%d addresses are kept", n)
	}
}

// What is told in another order is nothing new; what only the guest itself can reach is
// left out.
func TestAddressesThatAreKept(t *testing.T) {
	all := []netip.Prefix{
		netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("2001:db8::5/64"),
		netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("169.254.1.1/16"), netip.MustParsePrefix("::1/128"),
	}
	b, c, _ := strangerBench(t, func(n int64) hypervisor.Glance {
		shuffled := slices.Clone(all)
		if n%2 == 0 {
			slices.Reverse(shuffled)
		}
		return hypervisor.Glance{Agent: hypervisor.AgentConnected, Told: true, Interfaces: []hypervisor.GuestInterface{
			{MAC: "02:42:00:00:00:01", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}},
			{MAC: "02:4E:43:00:00:01", Addresses: shuffled},
		}}
	})
	command := b.launchCommand()
	command.Machine.NICs = []nodelink.NIC{{ID: id.New(), MAC: "02:4e:43:00:00:01"}}
	if _, err := b.send("make disks", &nodelink.CreateVolumes{Volumes: []nodelink.VolumeSpec{{ID: b.volume, SizeBytes: 1 << 20}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.send("launch", command); err != nil {
		t.Fatal(err)
	}
	seq := b.seq()
	b.pass(c, time.Hour)
	if got := fmt.Sprint(b.addresses()); got != "[192.0.2.7 2001:db8::5 10.0.0.1]" || b.seq() != seq+1 {
		t.Errorf("%s after %d reports", got, b.seq()-seq)
	}
}

// One that does not answer is asked less and less often.
func TestSilentGuestIsAskedSeldom(t *testing.T) {
	for is, most := range map[hypervisor.AgentState]int64{hypervisor.AgentUnresponsive: 25, hypervisor.AgentAbsent: 170} {
		b, c, asked := strangerBench(t, func(int64) hypervisor.Glance { return hypervisor.Glance{Agent: is} })
		b.launch()
		seq := b.seq()
		b.pass(c, 2*time.Hour)
		if n := asked.Load(); n < 10 || n > most || b.seq() != seq {
			t.Errorf("%s: asked %d times, %d reports", is, n, b.seq()-seq)
		}
	}
}
