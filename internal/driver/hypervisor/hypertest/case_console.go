package hypertest

import (
	"context"
	"io"
	"strings"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func consoleCases() []testCase {
	return []testCase{
		{"Console carries what is typed and said", consoleEchoes},
		{"Console has one writer at a time", consoleSingle},
		{"Console ends with its machine", consoleEnds},
		{"Console works after the agent restarts", consoleAfterRestart},
		{"Log keeps history after the end", logHistory},
		{"Log follows until the machine ends", logFollows},
		{"Log stops following when its reader does", logCancelled},
		{"Log begins anew with each incarnation", logPerEpoch},
	}
}

// console attaches, or skips where there is none and asserts the refusal.
func (b *bench) console(r contract.Ref) io.ReadWriteCloser {
	b.Helper()
	c, err := b.Driver().Console(b.ctx, r)
	if !b.Driver().Capabilities().Console {
		b.wantCode(err, errs.Unsupported, "console")
		b.Skip("no console")
	}
	if err != nil {
		b.Fatalf("console: %v", err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}

func (b *bench) say(c io.Writer, text string) {
	b.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		b.Fatalf("type %q: %v", text, err)
	}
}

func consoleEchoes(b *bench) {
	m := b.launch(Polite)
	b.ready(m.VM)
	c := b.console(m.Ref)
	b.say(c, "one two\r")
	seeIn(b.T, c, "one two")
	b.seeInLog(m.VM, "one two")
	b.clean(m)
}

func consoleSingle(b *bench) {
	m := b.launch(Polite)
	b.ready(m.VM)
	first := b.console(m.Ref)
	_, err := b.Driver().Console(b.ctx, m.Ref)
	b.wantCode(err, errs.Conflict, "second console")
	if err := first.Close(); err != nil {
		b.Fatal(err)
	}
	if _, err := first.Write([]byte("x")); err == nil {
		b.Fatal("a closed console still takes input")
	}
	second := b.console(m.Ref)
	b.say(second, "again\r")
	seeIn(b.T, second, "again")
	b.clean(m)
}

func consoleEnds(b *bench) {
	m := b.launch(Polite)
	b.ready(m.VM)
	c := b.console(m.Ref)
	b.kill(m.Ref)
	if _, err := io.Copy(io.Discard, c); err != nil {
		b.Fatalf("the console of an ended machine gave %v, want its end", err)
	}
	b.clean(m)
}

func consoleAfterRestart(b *bench) {
	m := b.launch(Polite)
	b.ready(m.VM)
	old := b.console(m.Ref)
	b.adoptOne(m.VM, nil)
	if _, err := io.Copy(io.Discard, old); err == nil {
		if _, err := old.Write([]byte("x")); err == nil {
			b.Fatal("a console of the closed driver still takes input")
		}
	}
	c := b.console(m.Ref)
	b.say(c, "hello\r")
	seeIn(b.T, c, "hello")
	b.clean(m)
}

func (b *bench) history(m contract.Machine) string {
	b.Helper()
	r, err := b.Driver().Log(b.ctx, m.VM, false)
	if err != nil {
		b.Fatalf("log: %v", err)
	}
	defer func() { _ = r.Close() }()
	all, err := io.ReadAll(r)
	if err != nil {
		b.Fatalf("log: %v", err)
	}
	return string(all)
}

func logHistory(b *bench) {
	m := b.launch(Polite)
	b.ready(m.VM)
	live := b.history(m)
	b.kill(m.Ref)
	for _, when := range []string{"after the end", "after a restart"} {
		got := b.history(m)
		if !strings.Contains(got, Ready) || !strings.HasPrefix(got, live) {
			b.Fatalf("%s the log is %q; it was %q", when, got, live)
		}
		b.adoptOne(m.VM, nil)
	}
	b.clean(m)
}

func logFollows(b *bench) {
	m := b.launch(Polite)
	r, err := b.Driver().Log(b.ctx, m.VM, true)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	seeIn(b.T, r, Ready)
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, r)
		ended <- err
	}()
	b.kill(m.Ref)
	select {
	case err := <-ended:
		if err != nil {
			b.Fatalf("following ended with %v", err)
		}
	case <-b.ctx.Done():
		b.Fatal("following did not end with the machine")
	}
	b.clean(m)
}

func logCancelled(b *bench) {
	m := b.launch(Polite)
	ctx, cancel := context.WithCancel(b.ctx)
	r, err := b.Driver().Log(ctx, m.VM, true)
	if err != nil {
		b.Fatal(err)
	}
	seeIn(b.T, r, Ready)
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, r)
		close(ended)
	}()
	cancel()
	select {
	case <-ended:
	case <-b.ctx.Done():
		b.Fatal("following did not end with its context")
	}
	_ = r.Close()
	b.clean(m)
}

func logPerEpoch(b *bench) {
	m := b.launch(Polite)
	b.ready(m.VM)
	c := b.console(m.Ref)
	b.say(c, "unmistakable\r")
	b.seeInLog(m.VM, "unmistakable")
	b.kill(m.Ref)
	next := at(m, m.Epoch+1)
	b.start(next)
	b.ready(m.VM)
	if got := b.history(next); strings.Contains(got, "unmistakable") {
		b.Fatalf("the log of a new incarnation holds the old one's: %q", got)
	}
	b.clean(next)
}
