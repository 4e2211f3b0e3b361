package server

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// An agent that speaks a later version of the node link than the server is refused by
// name, one that is too old too, and one of the version before is welcome with the
// messages of its time.
func TestVersionsOfTheNodeLink(t *testing.T) {
	t.Parallel()
	r := start(t, storetest.New(t), t.TempDir())
	k, _ := call[api.NodeToken](r, "POST", "/api/v1/node-tokens", nil)
	r.runNodes(1, []string{k.Token})()
	n, status := call[api.Node](r, "GET", "/api/v1/nodes/sim-0001", nil)
	if status != http.StatusOK {
		t.Fatal(status)
	}
	epoch := 100
	// what the first agents ever sent, and not a field more
	hello := func(protocol int) map[string]any {
		epoch++
		return map[string]any{
			"node": n.ID, "node_epoch": epoch, "agent_version": "of another time", "protocol": protocol,
			"inventory": map[string]any{"hostname": "h", "cpus": 2, "memory_bytes": 1 << 30, "storage_bytes": 1 << 30},
		}
	}
	for _, c := range []struct {
		protocol int
		says     string
	}{
		{nodelink.Protocol + 1, "upgrade the servers first"},
		{nodelink.Protocol - 2, "upgrade this node's agent"},
		{nodelink.Protocol - 1, ""},
		{nodelink.Protocol, ""},
	} {
		w, err := r.greet(hello(c.protocol))
		switch {
		case c.says != "" && (!errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), c.says)):
			t.Errorf("version %d: %v, want %q", c.protocol, err, c.says)
		case c.says == "" && (err != nil || len(w.Servers) == 0):
			t.Errorf("version %d: %+v %v", c.protocol, w, err)
		}
	}
	if n, _ := call[api.Node](r, "GET", "/api/v1/nodes/sim-0001", nil); n.Status.AgentVersion != "of another time" {
		t.Errorf("%+v", n.Status)
	}
}

// greet opens a session as the first node, says hello and hears the answer.
func (r *running) greet(hello any) (w nodelink.Welcome, err error) {
	r.t.Helper()
	conn, err := r.dialAs(newWarp(), nodelink.ALPNNode, r.identity())
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	answered := make(chan struct{})
	go func() {
		_ = nodelink.ServeConn(ctx, conn, func(context.Context, string, []byte) (any, error) { return nil, nil },
			func(ctx context.Context, up *nodelink.Uplink) {
				err = up.Call(ctx, nodelink.MethodHello, hello, &w)
				close(answered)
			})
	}()
	select {
	case <-answered:
	case <-ctx.Done():
		r.t.Fatal("no answer to the hello")
	}
	return w, err
}
