package nodelink

import (
	"context"
	"encoding/json"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

type pair struct {
	session *Session
	uplink  *Uplink
	agent   chan error
}

func connect(t *testing.T, down, up Handler) pair {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := pair{agent: make(chan error, 1)}
	uplinks := make(chan *Uplink, 1)
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			p.agent <- err
			return
		}
		p.agent <- ServeConn(ctx, c, down, func(_ context.Context, u *Uplink) { uplinks <- u })
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if p.session, err = Accept(ctx, conn, up); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.session.Close)
	select {
	case p.uplink = <-uplinks:
	case <-ctx.Done():
		t.Fatal("no uplink")
	}
	return p
}

func TestCallsRunBothWays(t *testing.T) {
	vm := id.New()
	p := connect(t,
		func(_ context.Context, method string, body []byte) (any, error) {
			var c PowerOff
			if err := json.Unmarshal(body, &c); err != nil || method != "power_off" {
				return nil, errs.New(errs.Internal, "%s %v", method, err)
			}
			if c.Attempt == 2 {
				return nil, errs.New(errs.StaleAttempt, "too late").HeldBy("j")
			}
			return Report{VM: c.VM, Epoch: c.OwnerEpoch}, nil
		},
		func(_ context.Context, _ string, body []byte) (any, error) {
			var h Hello
			err := json.Unmarshal(body, &h)
			return Welcome{LeaseMS: int64(h.NodeEpoch) * 2}, err
		})
	var r Report
	if err := p.session.Call(t.Context(), &PowerOff{Header: Header{VM: vm, OwnerEpoch: 7}}, &r); err != nil || r.VM != vm || r.Epoch != 7 {
		t.Errorf("%+v %v", r, err)
	}
	err := p.session.Call(t.Context(), &PowerOff{Header: Header{Attempt: 2}}, &r)
	if !errs.Is(err, errs.StaleAttempt) || errs.As(err).Job != "j" {
		t.Errorf("the error did not survive the way: %v", err)
	}
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			var w Welcome
			if err := p.uplink.Call(t.Context(), MethodHello, Hello{NodeEpoch: 5}, &w); err != nil || w.LeaseMS != 10 {
				t.Errorf("uplink call %d: %+v %v", n, w, err)
			}
		})
	}
	wg.Wait()
}

func TestSessionEnds(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	p := connect(t,
		func(ctx context.Context, _ string, _ []byte) (any, error) {
			<-ctx.Done() // of the deadline both sides know: this one may be ahead
			return nil, errs.New(errs.Timeout, "its time is over")
		},
		func(context.Context, string, []byte) (any, error) { <-block; return Done{}, nil })
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.session.Call(short, &Pause{}, nil); !errs.Is(err, errs.Timeout) {
		t.Errorf("a call past its deadline: %v", err)
	}
	called := make(chan error, 1)
	go func() { called <- p.session.Call(t.Context(), &Pause{}, nil) }()
	p.session.Close()
	if err := <-called; !errs.Is(err, errs.NodeUnreachable) {
		t.Errorf("a call on a closed session: %v", err)
	}
	if err := <-p.agent; !errs.Is(err, errs.NodeUnreachable) {
		t.Errorf("the agent's side: %v", err)
	}
	if err := p.uplink.Call(t.Context(), MethodHello, Hello{}, nil); !errs.Is(err, errs.NodeUnreachable) {
		t.Errorf("a call up a dead session: %v", err)
	}
}
