package cli

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
)

func TestVMLimits(t *testing.T) {
	b := newBench(t)
	v := someVM("web", "running")
	v.Spec.CPUWeight, v.Spec.CPUCapPercent = 250, 150
	v.Spec.Disks = []api.VMDisk{{ID: "01890a5d-ac96-774b-bcce-b302099a8057", SizeBytes: 10 << 30, Limits: &api.DiskLimits{IOPS: 500, WriteBytesPerSecond: 50 << 20}}}
	b.on("GET /vms/web", 200, v)
	got := b.do(t, "vm show web", 0)
	for _, want := range []string{"250", "150% of one processor", "10 GiB, at most 500 requests/s, 50 MiB/s written"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	v.Status.Job = "019a0000-0000-7000-8000-000000000000"
	b.on("PATCH /vms/id-web", 200, v)
	last := func(line string) string {
		b.do(t, line, 0)
		all := b.requests()
		return all[len(all)-1]
	}
	expect(t, last("vm set web --cpu-weight 250 --cpu-cap 150"), `PATCH /api/v1/vms/id-web {"cpu_weight":250,"cpu_cap_percent":150}`)
	expect(t, last("vm set web --cpu-cap 0"), `PATCH /api/v1/vms/id-web {"cpu_cap_percent":0}`)
	b.on("PATCH /vms/web/disks/0", 202, api.Accepted{Job: someJob("queued")})
	expect(t, last("vm disk limit web 0 --iops 500 --write-rate 50MiB"), `PATCH /api/v1/vms/web/disks/0 {"limits":{"iops":500,"write_bytes_per_second":52428800}}`)
	expect(t, last("vm disk limit web 0 --none"), `PATCH /api/v1/vms/web/disks/0 {"limits":{}}`)
	before := len(b.requests())
	for _, line := range []string{"vm disk limit web 0", "vm disk limit web 0 --none --iops 4", "vm disk limit web 0 --rate fast", "vm set web --cpu-cap half"} {
		b.do(t, line, 2)
	}
	if n := len(b.requests()); n != before {
		t.Errorf("%d requests: what is not understood was sent", n-before)
	}
	b.on("POST /vms", 202, api.Accepted{Job: someJob("queued")})
	expect(t, last("vm create x --image debian --cpu-weight 50 --cpu-cap 80"),
		`POST /api/v1/vms {"name":"x","cpus":1,"memory_bytes":536870912,"image":"debian","cpu_weight":50,"cpu_cap_percent":80}`)
}

func TestVMOnABridge(t *testing.T) {
	b := newBench(t)
	v := someVM("web", "running")
	v.Spec.NICs = []api.VMNIC{{MAC: "02:4e:43:00:00:01", Bridge: "br0"}}
	b.on("GET /vms/web", 200, v)
	if got := b.do(t, "vm show web", 0); !strings.Contains(got, "02:4e:43:00:00:01 on bridge br0") {
		t.Error(got)
	}
	b.on("POST /vms", 202, api.Accepted{Job: someJob("queued")})
	last := func(line string) string {
		b.do(t, line, 0)
		all := b.requests()
		return all[len(all)-1]
	}
	const made = `POST /api/v1/vms {"name":"x","cpus":1,"memory_bytes":536870912,"image":"debian","nics":[`
	expect(t, last("vm create x --image debian --nic bridge=br0"), made+`{"bridge":"br0"}]}`)
	expect(t, last("vm create x --image debian --nic bridge=br0 --nic user --forward tcp:8080:80"),
		made+`{"bridge":"br0"},{"forwards":[{"protocol":"tcp","host_port":8080,"guest_port":80}]}]}`)
	expect(t, last("vm create x --image debian --nic bridge=br0 --forward tcp:8080:80"),
		made+`{"bridge":"br0"},{"forwards":[{"protocol":"tcp","host_port":8080,"guest_port":80}]}]}`)
	before := len(b.requests())
	for _, line := range []string{"vm create x --image debian --nic br0", "vm create x --image debian --nic bridge="} {
		b.do(t, line, 2)
	}
	if n := len(b.requests()); n != before {
		t.Errorf("%d requests: what is not understood was sent", n-before)
	}
}

func TestVMGuest(t *testing.T) {
	b := newBench(t)
	b.on("GET /vms/web/guest", 200, api.VMGuest{
		Agent: "connected", Version: "7.2.22",
		Interfaces:  []api.GuestInterface{{Name: "eth0", MAC: "02:4e:43:00:00:01", Addresses: []string{"10.0.0.5/24", "fe80::1/64"}}},
		FileSystems: []api.GuestFileSystem{{Path: "/", Type: "ext4", TotalBytes: 10 << 30, UsedBytes: 5 << 30}, {Path: "/proc", Type: "proc"}},
		Memory:      &api.GuestMemory{TotalBytes: 2 << 30, FreeBytes: 1 << 20, AvailableBytes: 1 << 30},
	})
	got := b.do(t, "vm guest web", 0)
	for _, want := range []string{"connected 7.2.22", "02:4e:43:00:00:01 10.0.0.5/24, fe80::1/64", "ext4, 5 GiB of 10 GiB used (50%)", "2 GiB, 1 GiB available, 1 MiB free"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if got := b.do(t, "vm df web", 0); !strings.Contains(got, "5 GiB") || !strings.Contains(got, "50%") {
		t.Error(got)
	}
	b.on("GET /vms/db/guest", 200, api.VMGuest{Agent: "absent"})
	b.do(t, "vm df db", 4)
	b.on("POST /vms/web/exec", 200, api.VMExecResult{ExitCode: 42, Stdout: []byte("hello\n")})
	if got := b.do(t, "vm exec web -- sh -c true", 42); !strings.Contains(got, "hello\n") {
		t.Error(got)
	}
	all := b.requests()
	expect(t, all[len(all)-1], `POST /api/v1/vms/web/exec {"command":["sh","-c","true"],"timeout_seconds":60}`)
	b.do(t, "vm exec web", 2)
}

func TestVMFreeze(t *testing.T) {
	b := newBench(t)
	b.on("POST /vms/db/freeze", 200, api.VMFreezeResult{FileSystems: 2, Until: birth})
	b.on("POST /vms/db/thaw", 200, api.VMThawed{})
	expect(t, b.do(t, "vm freeze db --for 20s", 0), "2 file systems of db are frozen until 2025-12-31T21:00:00Z\n")
	expect(t, b.requests()[0], `POST /api/v1/vms/db/freeze {"seconds":20}`)
	expect(t, b.do(t, "vm thaw db", 0), "the file systems of db are not frozen\n")
	before := len(b.requests())
	for _, length := range []string{"0s", "61s", "1500ms"} {
		b.do(t, "vm freeze db --for "+length, 2)
	}
	if n := len(b.requests()); n != before {
		t.Errorf("%d requests: what is not possible was sent", n-before)
	}
	v := someVM("db", "running")
	v.Status.Addresses, v.Status.Frozen = []string{"10.0.0.5", "2001:db8::5"}, &api.VMFrozen{Until: birth, Reason: "its agent has gone"}
	b.on("GET /vms/db", 200, v)
	got := b.do(t, "vm show db", 0)
	for _, want := range []string{"10.0.0.5, 2001:db8::5", "its file systems, until 2025-12-31T21:00:00Z: its agent has gone"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	b.on("GET /vms", 200, api.List[api.VM]{Items: []api.VM{v}})
	if got := b.do(t, "vm ls -o wide", 0); !strings.Contains(got, "ADDRESS") || !strings.Contains(got, "10.0.0.5 +1") {
		t.Error(got)
	}
}
