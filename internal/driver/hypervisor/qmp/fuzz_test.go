package qmp_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
)

// Whatever a peer sends, the client neither panics nor hangs, and what it takes
// as an answer was one.
func FuzzPeer(f *testing.F) {
	for _, seed := range []string{
		greeting + "\n" + `{"return": {}, "id": 1}` + "\n" + `{"return": {"status": "running"}, "id": 2}` + "\n",
		greeting + "\n" + `{"return": {}, "id": 1}` + "\n" + `{"event": "STOP", "timestamp": {"seconds": -1, "microseconds": -1}}` + "\n",
		greeting + "\n" + `{"error": {"class": "GenericError", "desc": "x"}, "id": 1}` + "\n",
		greeting + "\n" + `{"return": {}, "id": 18446744073709551615}` + "\n",
		`{"QMP": null}` + "\n", "{", "\n\n\n", `{"QMP": {}, "return": {}}` + "\n", "\xff\xfe\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		ours, theirs := net.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		go func() { // reads whatever the client says
			buf := make([]byte, 4096)
			for {
				if _, err := theirs.Read(buf); err != nil {
					return
				}
			}
		}()
		go func() {
			_, _ = theirs.Write(sent)
			_ = theirs.Close()
		}()
		c, err := qmp.New(ctx, ours, qmp.Options{OnEvent: func(e qmp.Event) {
			if e.Name == "" && len(sent) == 0 {
				t.Error("an event from nothing")
			}
		}})
		if err != nil {
			if ctx.Err() != nil {
				t.Fatal("negotiation hung although the peer hung up")
			}
			return
		}
		defer func() { _ = c.Close() }()
		var out map[string]any
		if err := c.Execute(ctx, "query-status", nil, &out); err != nil && context.Cause(ctx) != nil {
			t.Fatal("a command hung although the peer hung up")
		}
	})
}
