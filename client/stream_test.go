package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
)

// breaking is a server of events that ends each connection after a few, and
// repeats the last one.
func breaking(t *testing.T, total, each int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		after := int64(100) // "now"
		if s := r.URL.Query().Get("after"); s != "" {
			after, _ = strconv.ParseInt(s, 10, 64)
		}
		w.Header().Set("Novacron-Event-Seq", strconv.FormatInt(after, 10))
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.CloseNow()
		if after > 100 {
			send(t, ws, after) // seen already
		}
		for n := after + 1; n <= min(after+each, total); n++ {
			send(t, ws, n)
		}
		_ = ws.Close(websocket.StatusGoingAway, "the server stops")
	})
}

func send(t *testing.T, ws *websocket.Conn, seq int64) {
	b, err := json.Marshal(api.Event{Seq: seq, Kind: "vm.updated"})
	if err == nil {
		err = ws.Write(t.Context(), websocket.MessageText, b)
	}
	if err != nil {
		t.Log("send an event:", err)
	}
}

func TestEventsComeOnceAndAll(t *testing.T) {
	for name, after := range map[string]int64{"from now": client.FromNow, "from a number": 100} {
		t.Run(name, func(t *testing.T) {
			c := local(t, breaking(t, 112, 3))
			want := int64(101)
			for ev, err := range c.Events(t.Context(), after) {
				if err != nil {
					t.Fatal(err)
				}
				if ev.Seq != want {
					t.Fatalf("event %d, want %d", ev.Seq, want)
				}
				if want++; ev.Seq == 112 {
					break
				}
			}
		})
	}
}

// A stream from now that broke before its first event goes on where it began.
func TestEventsFromNowKeepTheirPlace(t *testing.T) {
	var connections atomic.Int64
	inner := breaking(t, 103, 3)
	c := local(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if connections.Add(1) == 1 {
			w.Header().Set("Novacron-Event-Seq", "100")
			if ws, err := websocket.Accept(w, r, nil); err == nil {
				ws.CloseNow()
			}
			return
		}
		if r.URL.Query().Get("after") != "100" {
			t.Errorf("resumed at %q", r.URL.RawQuery)
		}
		inner.ServeHTTP(w, r)
	}))
	for ev, err := range c.Events(t.Context(), client.FromNow) {
		if err != nil || ev.Seq != 101 {
			t.Errorf("got %v, %v", ev, err)
		}
		break
	}
}

func TestEventsEndWithWhatDoesNotMend(t *testing.T) {
	c := local(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 400, api.Error{Code: "invalid_cursor", Detail: "too old"})
	}))
	n := 0
	for _, err := range c.Events(t.Context(), 1) {
		n++
		if client.CodeOf(err) != "invalid_cursor" {
			t.Errorf("got %v", err)
		}
	}
	if n != 1 {
		t.Errorf("%d errors, want one", n)
	}
}

func TestEventsEndWithTheirContext(t *testing.T) {
	c := local(t, breaking(t, 1000, 1000))
	ctx, cancel := context.WithCancel(t.Context())
	for ev, err := range c.Events(ctx, 0) {
		if err != nil {
			t.Errorf("an interrupt is no error: %v", err)
		}
		if ev.Seq == 5 {
			cancel()
		}
	}
	cancel()
}

// jobServer plays a job through its states, one per read.
func jobServer(t *testing.T, states ...string) http.Handler {
	var reads atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/events" {
			http.NotFound(w, r) // events are of help, not of need
			return
		}
		n := min(int(reads.Add(1)), len(states))
		state := states[n-1]
		if state == "away" {
			refuses(503)(w)
			return
		}
		j := api.Job{Kind: "job", ID: "j", Type: "vm.start", Target: api.JobTarget{Kind: "vm", Name: "web"}, State: state, Revision: int64(n)}
		if state == "failed" {
			j.Error = &api.JobError{Code: "host_failure", Detail: "no room"}
		}
		answer(w, 200, j)
	})
}

func TestWaitJob(t *testing.T) {
	cases := []struct {
		states []string
		views  int
		failed string
	}{
		{[]string{"queued", "running", "succeeded"}, 3, ""},
		{[]string{"queued", "away", "running", "away", "succeeded"}, 3, ""},
		{[]string{"running", "failed"}, 2, "vm.start of vm web did not succeed: no room"},
		{[]string{"cancelled"}, 1, "vm.start of vm web was cancelled"},
		{[]string{"needs_attention"}, 1, "vm.start of vm web did not succeed: its job is needs_attention"},
	}
	for _, tc := range cases {
		t.Run(fmt.Sprint(tc.states), func(t *testing.T) {
			c, views := local(t, jobServer(t, tc.states...)), 0
			job, err := c.WaitJob(t.Context(), "j", func(api.Job) { views++ })
			if views != tc.views || !job.Ended() {
				t.Errorf("%d views, want %d, up to %v", views, tc.views, job.State)
			}
			var failed *client.JobError
			switch {
			case tc.failed == "" && err != nil:
				t.Error(err)
			case tc.failed != "" && (!errors.As(err, &failed) || err.Error() != tc.failed):
				t.Errorf("got %v, want %s", err, tc.failed)
			}
		})
	}
}

func TestWaitJobIsInterrupted(t *testing.T) {
	c := local(t, jobServer(t, "running"))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.WaitJob(ctx, "j", func(api.Job) { cancel() })
	if client.CodeOf(err) != client.CodeInterrupted {
		t.Errorf("got %v", err)
	}
}

func TestConsole(t *testing.T) {
	c := local(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		for {
			kind, b, err := ws.Read(r.Context())
			if err != nil || string(b) == "bye" {
				_ = ws.Close(websocket.StatusNormalClosure, "")
				return
			}
			_ = ws.Write(r.Context(), kind, append([]byte("you said "), b...))
		}
	}))
	con, err := c.VMs.Console(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	defer con.Close()
	_, _ = io.WriteString(con, "hello")
	got := make([]byte, len("you said hello"))
	if _, err := io.ReadFull(con, got); err != nil || string(got) != "you said hello" {
		t.Errorf("got %q, %v", got, err)
	}
	_, _ = io.WriteString(con, "bye")
	if _, err := con.Read(got); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

func TestConsoleOfNobody(t *testing.T) {
	c := local(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 404, api.Error{Code: "not_found", Detail: "no such VM"})
	}))
	if _, err := c.VMs.Console(t.Context(), "web"); client.CodeOf(err) != "not_found" {
		t.Errorf("got %v", err)
	}
	if _, err := c.VMs.Logs(t.Context(), "web", true); client.CodeOf(err) != "not_found" {
		t.Errorf("got %v", err)
	}
}
