package cli

import (
	"testing"
)

func TestVMSet(t *testing.T) {
	b := newBench(t)
	b.on("GET /vms/web", 200, someVM("web", "stopped"))
	after := someVM("www", "stopped")
	after.Spec.CPUs, after.Spec.MemoryBytes = 4, 8<<30
	b.on("PATCH /vms/id-web", 200, after)
	got := b.do(t, "vm set web --name www --cpus 4 --memory 8GiB --label env=prod --label tier-", 0)
	expect(t, got, "www: 4 CPUs, 8 GiB, tier=web\n")
	expect(t, b.requests()[1], `PATCH /api/v1/vms/id-web {"name":"www","labels":{"env":"prod"},"cpus":4,"memory_bytes":8589934592}`)
	b.do(t, "vm set web --cpus 4", 0)
	expect(t, b.requests()[3], `PATCH /api/v1/vms/id-web {"cpus":4}`)
	b.do(t, "vm set web --protect=false", 0)
	expect(t, b.requests()[5], `PATCH /api/v1/vms/id-web {"protected":false}`)
	for _, line := range []string{"vm set web", "vm set", "vm set web --memory 1.5G", "vm set web --label x", "vm set web --cpus two"} {
		b.do(t, line, 2)
	}
	if n := len(b.requests()); n != 6 {
		t.Errorf("%d requests: what is not understood was sent", n)
	}
}
