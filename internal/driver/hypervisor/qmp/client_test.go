package qmp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
	"github.com/novacron/novacron/internal/vocab/clock"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}`

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// peer plays the hypervisor by a script.
type peer struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Scanner
}

type command struct {
	Execute   string          `json:"execute"`
	Arguments json.RawMessage `json:"arguments"`
	ID        uint64          `json:"id"`
}

func (p *peer) say(lines ...string) {
	for _, l := range lines {
		if _, err := p.conn.Write([]byte(l + "\r\n")); err != nil {
			return // the client may have hung up, which the test sees elsewhere
		}
	}
}

func (p *peer) hear() command {
	var c command
	if p.in.Scan() {
		if err := json.Unmarshal(p.in.Bytes(), &c); err != nil {
			p.t.Errorf("the client sent %q", p.in.Text())
		}
	}
	return c
}

// negotiated lets a client meet a peer and plays script after negotiation.
func negotiated(t *testing.T, opt qmp.Options, script func(*peer)) *qmp.Client {
	t.Helper()
	c, err := met(t, opt, func(p *peer) {
		p.say(greeting)
		p.say(fmt.Sprintf(`{"return": {}, "id": %d}`, p.hear().ID))
		script(p)
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func met(t *testing.T, opt qmp.Options, script func(*peer)) (*qmp.Client, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		script(&peer{t, theirs, bufio.NewScanner(theirs)})
	}()
	c, err := qmp.New(deadline(t), ours, opt)
	t.Cleanup(func() {
		_ = ours.Close()
		_ = theirs.Close()
		<-done
	})
	return c, err
}

// Who was connected before ended before it had an answer, which comes to who is there now.
func TestAnswersToOthersAreNone(t *testing.T) {
	c, err := met(t, qmp.Options{}, func(p *peer) {
		p.say(greeting, `{"return": {"late": 1}, "id": 12}`)
		q := p.hear()
		p.say(`{"error": {"class": "GenericError", "desc": "late"}, "id": 13}`, fmt.Sprintf(`{"return": {}, "id": %d}`, q.ID))
		p.say(fmt.Sprintf(`{"return": {"late": 0}, "id": %d}`, p.hear().ID))
	})
	if err != nil {
		t.Fatal(err)
	}
	var out struct{ Late int }
	if err := c.Execute(deadline(t), "query-status", nil, &out); err != nil || out.Late != 0 {
		t.Fatalf("got %+v, %v", out, err)
	}
}

func TestRepliesFindTheirCommands(t *testing.T) {
	c := negotiated(t, qmp.Options{}, func(p *peer) {
		one, two := p.hear(), p.hear()
		for _, q := range []command{two, one} { // answered in another order
			p.say(fmt.Sprintf(`{"return": {"name": %q}, "id": %d}`, q.Execute, q.ID))
		}
	})
	got := make(chan string, 2)
	for _, name := range []string{"a", "b"} {
		go func() {
			var out struct{ Name string }
			if err := c.Execute(deadline(t), name, nil, &out); err != nil {
				t.Error(err)
			}
			got <- name + out.Name
		}()
	}
	all := []string{<-got, <-got}
	slices.Sort(all)
	if !slices.Equal(all, []string{"aa", "bb"}) {
		t.Fatalf("got %v", all)
	}
}

func TestRefusalCarriesClassAndText(t *testing.T) {
	c := negotiated(t, qmp.Options{}, func(p *peer) {
		p.say(fmt.Sprintf(`{"error": {"class": "CommandNotFound", "desc": "no such thing"}, "id": %d}`, p.hear().ID))
	})
	err := c.Execute(deadline(t), "frobnicate", map[string]int{"x": 1}, nil)
	var refused *qmp.Error
	if !errors.As(err, &refused) || refused.Class != "CommandNotFound" || refused.Command != "frobnicate" {
		t.Fatalf("got %v", err)
	}
	if c.Err() != nil {
		t.Fatalf("a refusal ended the connection: %v", c.Err())
	}
}

func TestEventsComeBeforeTheReplyThatFollowsThem(t *testing.T) {
	var seen []string
	c := negotiated(t, qmp.Options{OnEvent: func(e qmp.Event) { seen = append(seen, e.Name) }}, func(p *peer) {
		q := p.hear()
		p.say(`{"event": "STOP", "timestamp": {"seconds": 5, "microseconds": 7}}`,
			`{"event": "RESUME", "data": {}, "timestamp": {"seconds": 6, "microseconds": 0}}`,
			fmt.Sprintf(`{"return": {}, "id": %d}`, q.ID))
	})
	if err := c.Execute(deadline(t), "stop", nil, nil); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(seen, []string{"STOP", "RESUME"}) {
		t.Fatalf("seen %v when the reply came", seen)
	}
}

func TestSilentPeerCostsOnlyTheCallsTime(t *testing.T) {
	release := make(chan struct{})
	c := negotiated(t, qmp.Options{}, func(p *peer) {
		late, next := p.hear(), p.hear()
		<-release
		p.say(fmt.Sprintf(`{"return": {"late": 1}, "id": %d}`, late.ID), fmt.Sprintf(`{"return": {}, "id": %d}`, next.ID))
	})
	whole := deadline(t)
	ctx, cancel := context.WithCancel(whole)
	failed := make(chan error, 1)
	go func() { failed <- c.Execute(ctx, "query-status", nil, nil) }()
	done := make(chan error, 1)
	go func() { done <- c.Execute(whole, "query-status", nil, nil) }()
	cancel()
	// Whichever of the two the peer heard first, the cancelled one ends alone.
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	close(release)
	go func() { // the cancelled call may never have been sent; give the peer its second command
		_ = c.Execute(whole, "query-name", nil, nil)
	}()
	if err := <-done; err != nil {
		t.Fatalf("the call after the late answer: %v", err)
	}
}

func TestBadPeersAreCutOff(t *testing.T) {
	for name, lines := range map[string][]string{
		"garbage":            {"\x00\xff\x17 not json"},
		"partial JSON":       {`{"event": "STOP", `},
		"array":              {`[1, 2, 3]`},
		"no kind":            {`{"id": 1}`},
		"two kinds":          {`{"return": {}, "event": "STOP", "id": 1}`},
		"reply to nothing":   {`{"return": {}}`},
		"reply from future":  {`{"return": {}, "id": 99}`},
		"id of another form": {`{"return": {}, "id": "1"}`},
		"second greeting":    {greeting},
		"deep":               {strings.Repeat(`{"event":`, 20000)},
	} {
		t.Run(name, func(t *testing.T) {
			c := negotiated(t, qmp.Options{}, func(p *peer) { p.say(lines...) })
			select {
			case <-c.Done():
			case <-deadline(t).Done():
				t.Fatal("the client still listens")
			}
			if err := c.Execute(deadline(t), "query-status", nil, nil); !errors.Is(err, qmp.ErrClosed) || c.Err().Error() == qmp.ErrClosed.Error() {
				t.Fatalf("got %v, want a closed connection with its reason", err)
			}
		})
	}
}

func TestBadGreetings(t *testing.T) {
	for name, script := range map[string]func(*peer){
		"hang up": func(p *peer) { _ = p.conn.Close() },
		"event":   func(p *peer) { p.say(`{"event": "STOP"}`) },
		"refusal": func(p *peer) {
			p.say(greeting)
			p.say(fmt.Sprintf(`{"error": {"class": "GenericError", "desc": "no"}, "id": %d}`, p.hear().ID))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := met(t, qmp.Options{}, script); err == nil {
				t.Fatal("negotiated")
			}
		})
	}
}

func TestEndlessLineIsCutOff(t *testing.T) {
	c := negotiated(t, qmp.Options{}, func(p *peer) {
		chunk := []byte(strings.Repeat("x", 64<<10))
		for range qmp.MaxLine/len(chunk) + 2 {
			if _, err := p.conn.Write(chunk); err != nil {
				return
			}
		}
		t.Error("the client took a line without end")
	})
	select {
	case <-c.Done():
	case <-deadline(t).Done():
		t.Fatal("the client still listens")
	}
}

func TestFloodIsCutOff(t *testing.T) {
	events := 0
	c := negotiated(t, qmp.Options{Clock: clock.NewFake(), OnEvent: func(qmp.Event) { events++ }}, func(p *peer) {
		w := bufio.NewWriterSize(p.conn, 64<<10)
		for range 1 << 20 {
			if _, err := w.WriteString(`{"event": "RTC_CHANGE"}` + "\n"); err != nil {
				return
			}
		}
		t.Error("the client took a flood without end")
	})
	select {
	case <-c.Done():
	case <-deadline(t).Done():
		t.Fatal("the client still listens")
	}
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "flood") {
		t.Fatalf("ended with %v", err)
	}
}

func TestPeerThatDoesNotReadHoldsACallOnlyForItsTime(t *testing.T) {
	release := make(chan struct{})
	c := negotiated(t, qmp.Options{}, func(*peer) { <-release })
	defer close(release)
	ctx, cancel := context.WithCancel(deadline(t))
	ended := make(chan error, 1)
	go func() { ended <- c.Execute(ctx, "query-status", nil, nil) }()
	cancel()
	if err := <-ended; err == nil {
		t.Fatal("a command nobody read succeeded")
	}
}

// noticed tells when something is being written.
type noticed struct {
	net.Conn
	writes chan struct{}
}

func (n noticed) Write(b []byte) (int, error) {
	n.writes <- struct{}{}
	return n.Conn.Write(b)
}

// Who gives up while nothing of his command is sent leaves the line to the others.
func TestCancelledSendKeepsTheLine(t *testing.T) {
	ours, theirs := net.Pipe()
	listen := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := &peer{t, theirs, bufio.NewScanner(theirs)}
		p.say(greeting)
		p.say(fmt.Sprintf(`{"return": {}, "id": %d}`, p.hear().ID))
		<-listen
		p.say(fmt.Sprintf(`{"return": {}, "id": %d}`, p.hear().ID))
	}()
	line := noticed{ours, make(chan struct{}, 3)}
	c, err := qmp.New(deadline(t), line, qmp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	<-line.writes
	ctx, cancel := context.WithCancel(deadline(t))
	ended := make(chan error, 1)
	go func() { ended <- c.Execute(ctx, "query-status", nil, nil) }()
	<-line.writes
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || errors.Is(err, qmp.ErrClosed) {
		t.Errorf("the call that was given up: %v", err)
	}
	close(listen)
	if err := c.Execute(deadline(t), "query-block", nil, nil); err != nil {
		t.Errorf("the next: %v", err)
	}
	_, _ = c.Close(), theirs.Close()
	<-done
}

func TestCloseEndsCalls(t *testing.T) {
	c := negotiated(t, qmp.Options{}, func(p *peer) { p.hear() })
	ended := make(chan error, 1)
	go func() { ended <- c.Execute(deadline(t), "query-status", nil, nil) }()
	_ = c.Close()
	_ = c.Close()
	if err := <-ended; !errors.Is(err, qmp.ErrClosed) {
		t.Fatalf("got %v", err)
	}
}
