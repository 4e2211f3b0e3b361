package cli

import (
	"testing"

	"github.com/novacron/novacron/api"
)

func TestVMDisks(t *testing.T) {
	b := newBench(t)
	v := someVM("web", "stopped")
	v.Spec.Disks = []api.VMDisk{
		{ID: "01890a5d-ac96-774b-bcce-b302099a8057", SizeBytes: 10 << 30, Image: "debian"},
		{ID: "01890a5d-ac96-774b-bcce-b302099a8058", Slot: 2, SizeBytes: 1 << 30},
	}
	b.on("GET /vms/web", 200, v)
	for _, route := range []string{"POST /vms/web/disks", "PATCH /vms/web/disks/2", "DELETE /vms/web/disks/2"} {
		b.on(route, 202, api.Accepted{Job: someJob("queued")})
	}
	expect(t, b.do(t, "vm disk list web", 0), `DISK   SIZE     IMAGE    IN GUEST   SERIAL
0      10 GiB   debian   vda        774bbcceb302099a8057
2      1 GiB    -        vdb        774bbcceb302099a8058
`)
	last := func(line string) string {
		b.do(t, line, 0)
		all := b.requests()
		return all[len(all)-1]
	}
	expect(t, last("vm disk add web --size 5GiB"), `POST /api/v1/vms/web/disks {"size_bytes":5368709120}`)
	expect(t, last("vm disk add web --image dataset"), `POST /api/v1/vms/web/disks {"image":"dataset"}`)
	expect(t, last("vm disk add web --size 5GiB --pool shared"), `POST /api/v1/vms/web/disks {"size_bytes":5368709120,"pool":"shared"}`)
	expect(t, last("vm disk grow web 2 --size 2GiB"), `PATCH /api/v1/vms/web/disks/2 {"size_bytes":2147483648}`)
	expect(t, last("vm disk remove web 2"), `DELETE /api/v1/vms/web/disks/2`)
	before := len(b.requests())
	for _, line := range []string{
		"vm disk add web", "vm disk add web --size 1.5G", "vm disk grow web 2", "vm disk grow web --size 1GiB", "vm disk remove web",
		"vm create x --image debian --disk 10GiB:", "vm create x --image debian --disk 10GiB@", "vm create x --image debian --disk 10GB",
	} {
		b.do(t, line, 2)
	}
	if n := len(b.requests()); n != before {
		t.Errorf("%d requests: what is not understood was sent", n-before)
	}
	b.on("POST /vms", 202, api.Accepted{Job: someJob("queued")})
	expect(t, last("vm create x --image debian --disk 10GiB --disk 5GiB:data --disk :data"),
		`POST /api/v1/vms {"name":"x","cpus":1,"memory_bytes":536870912,"image":"debian",`+
			`"disks":[{"size_bytes":10737418240},{"size_bytes":5368709120,"image":"data"},{"image":"data"}]}`)
}
