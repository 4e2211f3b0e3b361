package cli

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
)

func TestPools(t *testing.T) {
	b := newBench(t)
	p := api.StoragePool{
		Meta: api.Meta{Kind: "storage_pool", ID: "01890a5d-ac96-774b-bcce-b302099a8057", Name: "shared"}, Spec: api.StoragePoolSpec{Type: "shared_directory"},
		Status: api.StoragePoolStatus{
			CapacityBytes: 1 << 40, UsedBytes: 10 << 30,
			Nodes:   []api.StoragePoolNode{{Node: "n1", Name: "shared", Usable: true, FreeBytes: 1 << 30}, {Node: "n2", Name: "mine", Reason: "is missing: there is no folder /mnt"}},
			Volumes: []api.StoragePoolVolume{{VM: "web", Slot: 1, SizeBytes: 10 << 30}},
		},
	}
	b.on("GET /storage-pools", 200, api.List[api.StoragePool]{Items: []api.StoragePool{p}})
	b.on("GET /storage-pools/shared", 200, p)
	b.on("DELETE /storage-pools/shared", 204, nil)
	b.on("POST /vms", 202, api.Accepted{Job: someJob("queued")})
	expect(t, b.do(t, "pool list", 0), `NAME     TYPE               USABLE ON   DISKS   GIVEN AWAY   CAPACITY
shared   shared_directory   1 of 2      1       10 GiB       1 TiB
`)
	shown := b.do(t, "pool show shared", 0)
	for _, want := range []string{"usable, 1 GiB free", "not usable: it is missing: there is no folder /mnt (its name there is mine)", "disk 1 of web"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in:\n%s", want, shown)
		}
	}
	expect(t, b.do(t, "pool delete shared", 0), "storage pool shared: forgotten\n")
	for line, want := range map[string]string{
		"--pool shared": `"disks":[{"pool":"shared"}]`,
		"--disk 1GiB --disk 2GiB:data@fast --pool slow": `"disks":[{"size_bytes":1073741824,"pool":"slow"},{"size_bytes":2147483648,"image":"data","pool":"fast"}]`,
	} {
		b.do(t, "vm create x --image debian "+line, 0)
		all := b.requests()
		if got := all[len(all)-1]; !strings.Contains(got, want) {
			t.Errorf("%s: %s", line, got)
		}
	}
}
