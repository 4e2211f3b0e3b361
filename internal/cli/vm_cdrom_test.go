package cli

import (
	"testing"

	"github.com/novacron/novacron/api"
)

func TestVMCDROM(t *testing.T) {
	b := newBench(t)
	v := someVM("web", "running")
	v.Spec.CDROM = "drivers"
	b.on("GET /vms/web", 200, v)
	for _, route := range []string{"POST /vms/web/cdrom/attach", "POST /vms/web/cdrom/eject", "POST /vms"} {
		b.on(route, 202, api.Accepted{Job: someJob("queued")})
	}
	last := func(line string) string {
		b.do(t, line, 0)
		all := b.requests()
		return all[len(all)-1]
	}
	expect(t, last("vm cdrom attach web drivers"), `POST /api/v1/vms/web/cdrom/attach {"image":"drivers"}`)
	expect(t, last("vm cdrom attach web drivers --replace"), `POST /api/v1/vms/web/cdrom/attach {"image":"drivers","replace":true}`)
	expect(t, last("vm cdrom attach web drivers --replace --force"), `POST /api/v1/vms/web/cdrom/attach {"image":"drivers","replace":true,"force":true}`)
	expect(t, last("vm cdrom eject web"), `POST /api/v1/vms/web/cdrom/eject {}`)
	expect(t, last("vm cdrom eject web --force"), `POST /api/v1/vms/web/cdrom/eject {"force":true}`)
	expect(t, last("vm create x --image debian --cdrom drivers"),
		`POST /api/v1/vms {"name":"x","cpus":1,"memory_bytes":536870912,"image":"debian","cdrom":"drivers"}`)
	before := len(b.requests())
	for _, line := range []string{"vm cdrom attach web", "vm cdrom attach web drivers --force", "vm cdrom eject", "vm cdrom insert web drivers"} {
		b.do(t, line, 2)
	}
	if n := len(b.requests()); n != before {
		t.Errorf("%d requests: what is not understood was sent", n-before)
	}
}
