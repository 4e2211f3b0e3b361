package nodelink

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
)

var update = flag.Bool("update", false, "write the golden file of the messages' shapes")

// messages are everything that travels on the link.
var messages = []any{
	EnsureImages{},
	EnsureReply{},
	OfferImage{},
	ImageOffer{},
	CreateVolumes{},
	CopyVolumes{},
	WriteSeed{},
	GrowVolume{},
	DeleteVolumes{},
	Launch{},
	Shutdown{},
	PowerOff{},
	Pause{},
	Resume{},
	DepartVM{},
	Departed{},
	ReceiveVM{},
	Received{},
	SendVM{},
	CutoverVM{},
	SettleVM{},
	MoveReply{},
	AskMove{},
	MoveProgress{},
	SampleMemory{},
	MemorySample{},
	Swap{},
	SwapReply{},
	Suspend{},
	Look{},
	FreezeGuest{},
	FreezeReply{},
	ThawGuest{},
	Erase{},
	OfferVM{},
	TakeVM{},
	TakeReply{},
	AskTransfer{},
	Transfer{},
	DropImages{},
	HostPlan{},
	OpenConsole{},
	OpenLog{},
	ReadVolume{},
	Metrics{},
	MetricsReply{},
	ListHoldings{},
	HoldingsReply{},
	Done{},
	Report{},
	Hello{},
	Welcome{},
	Heartbeat{},
	HeartbeatReply{},
	Reports{},
	ReportsReply{},
	JoinRequest{},
	JoinReply{},
	RenewReply{},
	WireError{},
	frame{},
}

// shape lists a type's JSON fields with their kinds, one per line.
func shape(t reflect.Type, at string, out *[]string) {
	switch {
	case t.Kind() == reflect.Pointer:
		shape(t.Elem(), at, out)
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		shape(t.Elem(), at+"[]", out)
	case t.Kind() == reflect.Map:
		shape(t.Elem(), at+"{}", out)
	case t.Kind() == reflect.Struct && t != reflect.TypeFor[time.Time]():
		for _, f := range reflect.VisibleFields(t) {
			if f.Anonymous || len(f.Index) > 1 && !t.Field(f.Index[0]).Anonymous {
				continue
			}
			shape(f.Type, at+"."+f.Tag.Get("json"), out)
		}
	default:
		kind := t.Kind().String()
		switch t {
		case reflect.TypeFor[time.Time]():
			kind = "time"
		case reflect.TypeFor[json.RawMessage]():
			kind = "any"
		}
		if t.Kind() == reflect.Array {
			kind = "id"
		}
		*out = append(*out, at+" "+kind)
	}
}

// The messages' shapes are what agents and servers of different versions agree
// on. A field may be added; one that is renamed, retyped or taken away needs a new
// Protocol. After a change that keeps to this: go test ./internal/nodelink -update.
func TestShapesOfMessages(t *testing.T) {
	var lines []string
	for _, m := range messages {
		typ := reflect.TypeOf(m)
		name := typ.Name()
		if c, ok := reflect.TypeAssert[Command](reflect.New(typ)); ok {
			name += "(" + c.Method() + ")"
		}
		lines = append(lines, name)
		shape(typ, name, &lines)
	}
	slices.Sort(lines)
	got := strings.Join(lines, "\n") + "\n"
	path := filepath.Join("testdata", "shapes.golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		have := strings.Split(got, "\n")
		for l := range strings.SplitSeq(string(want), "\n") {
			if !slices.Contains(have, l) {
				t.Errorf("gone: %s", l)
			}
		}
		for _, l := range have {
			if !strings.Contains(string(want), l+"\n") {
				t.Errorf("new: %s", l)
			}
		}
	}
}

// A message of a newer peer, with fields nobody here knows, is understood.
func TestUnknownFieldsAreIgnored(t *testing.T) {
	var h Hello
	if err := json.Unmarshal([]byte(`{"node_epoch":7,"tomorrow":{"a":[1]},"inventory":{"cpus":2,"gpus":[{}]}}`), &h); err != nil || h.NodeEpoch != 7 || h.Inventory.CPUs != 2 {
		t.Errorf("%+v %v", h, err)
	}
}

// An agent that floods is carried out a few calls at a time.
func TestFloodIsBounded(t *testing.T) {
	var running, most atomic.Int64
	full, open := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p := connect(t, nil, func(context.Context, string, []byte) (any, error) {
		n := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		if n == maxUpCalls {
			once.Do(func() { close(full) })
		}
		<-open
		return Done{}, nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var failed atomic.Int64
	for range 40 * maxUpCalls {
		wg.Go(func() {
			if p.uplink.Call(ctx, "x", Done{}, nil) != nil {
				failed.Add(1)
			}
		})
	}
	<-full
	close(open)
	wg.Wait()
	if most.Load() > maxUpCalls || failed.Load() > 0 {
		t.Errorf("%d ran at once, %d failed", most.Load(), failed.Load())
	}
}

// An agent does not wait for ever for a server that does not speak.
func TestSilentServerIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, there) }()
		began := time.Now()
		err := ServeConn(t.Context(), here, nil, func(context.Context, *Uplink) { t.Error("an uplink came from nowhere") })
		if took := time.Since(began); !errs.Is(err, errs.NodeUnreachable) || took > 2*uplinkTimeout {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// What a peer says of an error is shown and kept, so it is bounded and harmless.
func TestPeersWordsAreTamed(t *testing.T) {
	w := &WireError{Code: "host\x00", Message: "a\x00b\nc\x1b[31m" + strings.Repeat("x", 1<<20), Job: "\x00", Blockers: slices.Repeat([]string{"\r"}, 10_000)}
	e := errs.As(w.Err())
	for _, s := range append([]string{string(e.Code), e.Message, e.Job}, e.Blockers...) {
		if strings.ContainsAny(s, "\x00\n\r\x1b") || len(s) > maxText+8 {
			t.Errorf("%.40q", s)
		}
	}
	if len(e.Blockers) != maxBlockers || !strings.HasPrefix(e.Message, "a b c [31mxx") {
		t.Errorf("%d blockers, %.40q", len(e.Blockers), e.Message)
	}
	if got := Text("i/o error on disk vda: Größe\xff"); got != "i/o error on disk vda: Größe\uFFFD" {
		t.Errorf("%q", got)
	}
}
