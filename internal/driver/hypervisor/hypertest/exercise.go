package hypertest

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Exercise runs the whole suite. newHarness is called once per case.
func Exercise(t *testing.T, newHarness func(t *testing.T, sink contract.Sink) Harness) {
	t.Helper()
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			rec := NewRecorder()
			h := newHarness(t, rec.Sink)
			b := &bench{T: t, Harness: h, rec: rec, ctx: Context(t), another: newHarness}
			b.adopt()
			c.run(b)
		})
	}
}

type testCase struct {
	name string
	run  func(*bench)
}

func cases() []testCase {
	var all []testCase
	for _, group := range [][]testCase{
		lifeCases(), epochCases(), endCases(), adoptCases(), releaseCases(), consoleCases(), diskCases(), limitCases(), bridgeCases(), suspendCases(), moveCases(), moveFaultCases(), warmCases(), cdCases(), mediaCases(), displayCases(), hardwareCases(), firmwareCases(), guestCases(), refusalCases(),
	} {
		all = append(all, group...)
	}
	return all
}

// bench is what one case works with.
type bench struct {
	*testing.T
	Harness
	rec *Recorder
	ctx context.Context
	// another makes a second host.
	another func(t *testing.T, sink contract.Sink) Harness
}

func (b *bench) adopt() []contract.Status {
	b.Helper()
	all, err := b.Driver().Adopt(b.ctx)
	if err != nil {
		b.Fatalf("adopt: %v", err)
	}
	return all
}

// adoptOne restarts the agent and gives what the new one finds of a VM.
func (b *bench) adoptOne(v id.ID, while func()) contract.Status {
	b.Helper()
	b.Away(b.T, while)
	for _, s := range b.adopt() {
		if s.VM == v {
			return s
		}
	}
	b.Fatalf("adopt did not find VM %s", v)
	return contract.Status{}
}

// launch starts a fresh machine.
func (b *bench) launch(k Kind) contract.Machine {
	b.Helper()
	m := b.Machine(b.T, k)
	b.start(m)
	return m
}

// start launches a machine and expects it to run.
func (b *bench) start(m contract.Machine) contract.Status {
	b.Helper()
	s, err := b.Driver().Launch(b.ctx, m)
	if err != nil {
		b.Fatalf("launch: %v", err)
	}
	if s.Phase != vm.PhaseRunning || s.Ref != m.Ref || s.Since.IsZero() {
		b.Fatalf("launch gave %+v, want running under %+v", s, m.Ref)
	}
	return s
}

func (b *bench) inspect(v id.ID) contract.Status {
	b.Helper()
	s, err := b.Driver().Inspect(b.ctx, v)
	if err != nil {
		b.Fatalf("inspect: %v", err)
	}
	return s
}

func (b *bench) kill(r contract.Ref) contract.Status {
	b.Helper()
	s, err := b.Driver().Kill(b.ctx, r)
	if err != nil {
		b.Fatalf("kill: %v", err)
	}
	if s.Phase.OnNode() || s.PID != 0 {
		b.Fatalf("kill left %+v", s)
	}
	return s
}

func (b *bench) release(v id.ID) {
	b.Helper()
	if err := b.Driver().Release(b.ctx, v); err != nil {
		b.Fatalf("release: %v", err)
	}
}

// clean ends and releases VMs and expects an empty host.
func (b *bench) clean(ms ...contract.Machine) {
	b.Helper()
	for _, m := range ms {
		b.kill(m.Ref)
		b.release(m.VM)
	}
	if left := b.Leftovers(); len(left) > 0 {
		b.Fatalf("the host still holds:\n%s", strings.Join(left, "\n"))
	}
}

// await waits for a phase of an incarnation at the sink.
func (b *bench) await(r contract.Ref, p vm.Phase) contract.Status {
	b.Helper()
	return b.rec.Await(b.T, r.VM, string(p), func(s contract.Status) bool { return s.Ref == r && s.Phase == p })
}

// ready waits until the guest says so in its log.
func (b *bench) ready(v id.ID) {
	b.Helper()
	b.seeInLog(v, Ready)
}

func (b *bench) seeInLog(v id.ID, want string) {
	b.Helper()
	r, err := b.Driver().Log(b.ctx, v, true)
	if err != nil {
		b.Fatalf("log: %v", err)
	}
	defer func() { _ = r.Close() }()
	seeIn(b.T, r, want)
}

// seeIn reads until the text came.
func seeIn(t *testing.T, r io.Reader, want string) {
	t.Helper()
	var got strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(got.String(), want) {
		n, err := r.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			t.Fatalf("waited for %q, got %q and then %v", want, got.String(), err)
		}
	}
}

func (b *bench) wantCode(err error, code errs.Code, what string) {
	b.Helper()
	if !errs.Is(err, code) {
		b.Fatalf("%s: got %v, want %s", what, err, code)
	}
}

// phases gives the phases the sink saw, repetitions folded.
func (b *bench) phases(v id.ID) []vm.Phase {
	var out []vm.Phase
	for _, s := range b.rec.Of(v) {
		if len(out) == 0 || out[len(out)-1] != s.Phase {
			out = append(out, s.Phase)
		}
	}
	return out
}

// everyCall makes each call that names an incarnation, by name.
func (b *bench) everyCall(r contract.Ref) map[string]error {
	d := b.Driver()
	out := map[string]error{}
	_, out["pause"] = d.Pause(b.ctx, r)
	_, out["resume"] = d.Resume(b.ctx, r)
	out["shutdown"] = d.Shutdown(b.ctx, r)
	c, err := d.Console(b.ctx, r)
	if err == nil {
		_ = c.Close()
	}
	out["console"] = err
	return out
}
