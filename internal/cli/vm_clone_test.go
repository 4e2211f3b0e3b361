package cli

import (
	"testing"

	"github.com/novacron/novacron/api"
)

func TestVMClone(t *testing.T) {
	b := newBench(t)
	b.on("POST /vms/web/clone", 202, api.Accepted{Job: someJob("queued")})
	expect(t, b.do(t, "vm clone web web-2", 0), "clone web as web-2: accepted as job j1\nfollow it with: novacron job wait j1\n")
	b.do(t, "vm clone web web-3 --label a=b", 0)
	expect(t, b.requests()[0], `POST /api/v1/vms/web/clone {"name":"web-2"}`)
	expect(t, b.requests()[1], `POST /api/v1/vms/web/clone {"name":"web-3","labels":{"a":"b"}}`)
	for _, line := range []string{"vm clone web", "vm clone", "vm clone web a b", "vm clone web a --label b-"} {
		b.do(t, line, 2)
	}
	if n := len(b.requests()); n != 2 {
		t.Errorf("%d requests: what is not understood was sent", n)
	}
}
