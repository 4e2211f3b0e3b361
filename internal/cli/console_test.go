package cli

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/novacron/novacron/internal/vocab/clock"
)

func TestTyped(t *testing.T) {
	cases := map[string]struct {
		in, want string
		left     bool
	}{
		"the end":           {"ls\n", "ls\n", false},
		"leave":             {"ls\n\x1dmore", "ls\n", true},
		"leave at once":     {"\x1d", "", true},
		"control C is sent": {"\x03", "\x03", false},
	}
	for name, tc := range cases {
		var guest bytes.Buffer
		left, err := typed(strings.NewReader(tc.in), &guest)
		if err != nil || left != tc.left || guest.String() != tc.want {
			t.Errorf("%s: sent %q, left %v, %v", name, guest.String(), left, err)
		}
	}
	if _, err := typed(strings.NewReader("x"), broken{}); err == nil {
		t.Error("a guest that is gone is not noticed")
	}
}

// broken refuses to be written to.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// guest answers each word with its echo and hangs up at "exit".
func guest(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.CloseNow()
		for {
			_, b, err := ws.Read(r.Context())
			if err != nil {
				return
			}
			if strings.TrimSpace(string(b)) == "exit" {
				_ = ws.Close(websocket.StatusNormalClosure, "")
				return
			}
			_ = ws.Write(r.Context(), websocket.MessageBinary, append([]byte("echo "), b...))
		}
	}
}

// Standard input that ends does not end the console: the answer is still to come.
func TestConsoleOutlivesItsInput(t *testing.T) {
	b := newBench(t)
	b.app.clock = clock.System{}
	b.mux.HandleFunc("GET /api/v1/vms/web/console", guest(t))
	b.in = strings.NewReader("hello\n")
	b.do(t, "vm console web --timeout 300ms", 0)
	if got := b.stdout.String(); got != "echo hello\n" {
		t.Errorf("got %q", got)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b.in = r
	go func() {
		_, _ = io.WriteString(w, "hello\n")
		_, _ = w.Write([]byte{leaveByte})
		w.Close()
	}()
	b.do(t, "vm console web", 0)
	b.in = strings.NewReader("exit\n")
	b.do(t, "vm console web", 0)
	b.do(t, "vm console other", 1)
}

func TestKeepLines(t *testing.T) {
	for _, tc := range []struct {
		in   string
		n    int
		want string
	}{
		{"a\nb\nc\n", 2, "b\nc\n"}, {"a\nb\nc", 2, "b\nc"}, {"a\n", 5, "a\n"}, {"", 1, ""}, {"a\nb\n", 0, ""}, {"\n\n", 1, "\n"},
	} {
		if got := string(keepLines([]byte(tc.in), tc.n)); got != tc.want {
			t.Errorf("%q, %d: got %q, want %q", tc.in, tc.n, got, tc.want)
		}
	}
}

// In a log that is followed, the past ends where the first pause is.
func TestLastLinesOfAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		go func() {
			_, _ = io.WriteString(w, "one\ntwo\n")
			_, _ = io.WriteString(w, "three\n")
			time.Sleep(time.Second)
			_, _ = io.WriteString(w, "four\n")
			_, _ = io.WriteString(w, "five\n")
			w.Close()
		}()
		var out bytes.Buffer
		if err := lastLines(t.Context(), sleeping{}, &out, r, 1); err != nil || out.String() != "three\nfour\nfive\n" {
			t.Errorf("got %q, %v", out.String(), err)
		}
	})
}

// sleeping is a clock of the synctest bubble.
type sleeping struct{ clock.System }

// After implements clock.Clock.
func (sleeping) After(d time.Duration) (<-chan time.Time, func()) {
	timer := time.NewTimer(d)
	return timer.C, func() { timer.Stop() }
}

func TestLogs(t *testing.T) {
	b := newBench(t)
	b.mux.HandleFunc("GET /api/v1/vms/web/log", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "one\ntwo\nthree\n"+r.URL.RawQuery)
	})
	for line, want := range map[string]string{
		"vm logs web":            "one\ntwo\nthree\n",
		"vm logs web -f":         "one\ntwo\nthree\nfollow=true",
		"vm logs web --tail 1":   "three\n",
		"vm logs web --tail 100": "one\ntwo\nthree\n",
	} {
		if got := b.do(t, line, 0); got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if code := b.run(ctx, []string{"vm", "logs", "web"}); code != exitInterrupted {
		t.Errorf("an interrupt ends with %d", code)
	}
	if !strings.Contains(b.stderr.String(), "interrupted") {
		t.Error(b.stderr.String())
	}
}
