package hypertest

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/tap"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func bridgeCases() []testCase {
	return []testCase{
		{"A machine joins a bridge that it may join, and is adopted there", joinsBridge},
		{"A machine joins no other bridge", joinsNoOther},
	}
}

// Taps lists what the kernel has of a node's guests on bridges: devices and filters.
func Taps(node string) (out []string) {
	taps, _ := filepath.Glob("/sys/class/net/nv" + node + "*")
	for _, t := range taps {
		out = append(out, "tap "+filepath.Base(t))
	}
	if tap.Usable() != nil {
		return out
	}
	chains, err := tap.Filters(context.Background(), tap.Table(node))
	if err != nil || chains != nil {
		out = append(out, fmt.Sprintf("table of filters with %q, %v", chains, err))
	}
	return out
}

func joinsBridge(b *bench) {
	bridges := b.Driver().Capabilities().Bridges
	if len(bridges) == 0 {
		return // the other case asserts the refusal
	}
	m := b.Machine(b.T, Polite)
	m.NICs = []contract.NIC{
		{ID: id.New(), MAC: "02:4e:43:0a:0b:0c", Bridge: bridges[0]},
		{ID: id.New(), MAC: "02:4e:43:0a:0b:0d", Bridge: bridges[0]},
	}
	b.start(m)
	b.ready(m.VM)
	s := b.adoptOne(m.VM, nil)
	if s.Ref != m.Ref || !s.Phase.OnNode() {
		b.Fatalf("adopted as %+v", s)
	}
	b.kill(m.Ref)
	m.Epoch++
	b.start(m) // its device is free again
	b.clean(m)
}

func joinsNoOther(b *bench) {
	m := b.Machine(b.T, Polite)
	m.NICs = []contract.NIC{{ID: id.New(), MAC: "02:4e:43:0a:0b:0c", Bridge: "no-such-bridge"}}
	if _, err := b.Driver().Launch(b.ctx, m); !errs.Is(err, errs.Unsupported) && !errs.Is(err, errs.NotFound) {
		b.Fatalf("onto a bridge that it may not join: %v", err)
	}
	m.NICs[0].Bridge = "../br0"
	_, err := b.Driver().Launch(b.ctx, m)
	b.wantCode(err, errs.InvalidField, "onto what is no bridge")
	b.clean(m)
}
