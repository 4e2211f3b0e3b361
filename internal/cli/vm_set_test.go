package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
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
	b.do(t, "vm set web --restart always", 0)
	expect(t, b.requests()[7], `PATCH /api/v1/vms/id-web {"restart_policy":"always"}`)
	b.do(t, "vm set web --autostart=false --start-order 2 --start-delay 30", 0)
	expect(t, b.requests()[9], `PATCH /api/v1/vms/id-web {"autostart":false,"start_order":2,"start_delay_seconds":30}`)
	b.do(t, "vm set web --machine pc-q35-8.2 --cpu-model host --firmware uefi", 0)
	expect(t, b.requests()[11], `PATCH /api/v1/vms/id-web {"machine":{"type":"pc-q35-8.2","cpu":"host","firmware":"uefi"}}`)
	for _, line := range []string{"vm set web", "vm set", "vm set web --memory 1.5G", "vm set web --label x", "vm set web --cpus two"} {
		b.do(t, line, 2)
	}
	if n := len(b.requests()); n != 12 {
		t.Errorf("%d requests: what is not understood was sent", n)
	}
}

func TestVMShowRestarts(t *testing.T) {
	b := newBench(t)
	v := someVM("web", "failed")
	v.Spec.RestartPolicy = "on_failure"
	next := birth.Add(time.Hour)
	v.Status.Restarts = &api.VMRestarts{Total: 4, InARow: 2, Reason: "killed by signal 9", EndedAt: birth, LastAt: &birth, NextAt: &next}
	b.on("GET /vms/web", 200, v)
	if got := b.do(t, "vm show web", 0); !strings.Contains(got, "on_failure; 4 so far, 2 in a row, the last one 3h ago") || !strings.Contains(got, "killed by signal 9; the next one at "+next.UTC().Format(time.RFC3339)) {
		t.Error(got)
	}
	v.Status.Restarts.NextAt, v.Status.Restarts.GaveUpAt = nil, &birth
	b.on("GET /vms/db", 200, v)
	if got := b.do(t, "vm show db", 0); !strings.Contains(got, "given up 3h ago") || !strings.Contains(got, "novacron vm logs") {
		t.Error(got)
	}
}

func TestVMSuspend(t *testing.T) {
	b := newBench(t)
	b.on("POST /vms/web/suspend", 202, api.Accepted{Job: someJob("queued")})
	b.do(t, "vm suspend web", 0)
	expect(t, b.requests()[0], `POST /api/v1/vms/web/suspend`)
}
