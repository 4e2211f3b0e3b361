package qemu_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// BenchmarkMove compares, in one run and in turn, what it costs to move an idle guest of
// 128 MiB, with its disk and encrypted, with its floor: two QEMUs that are driven by
// hand, without a disk to copy, in the clear.
func BenchmarkMove(b *testing.B) {
	near, far := newHarness(b, nil), newHarness(b, nil)
	for _, h := range []*harness{near, far} {
		if _, err := h.driver.Describe(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	var ours, floor, oursDown, floorDown time.Duration
	rounds := 0
	for b.Loop() {
		rounds++
		total, down := moveOnce(b, near, far)
		ours, oursDown = ours+total, oursDown+down
		total, down = moveByHand(b, near)
		floor, floorDown = floor+total, floorDown+down
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(rounds) }
	b.ReportMetric(ms(ours), "ms/move")
	b.ReportMetric(ms(floor), "ms/floor")
	b.ReportMetric(ms(oursDown), "ms/downtime")
	b.ReportMetric(ms(floorDown), "ms/floor-downtime")
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// moveOnce gives what a Send takes, and for how long the guest stood still.
func moveOnce(b *testing.B, near, far *harness) (total, down time.Duration) {
	b.Helper()
	ctx := b.Context()
	m := near.machine(b, append([]byte(nil), benchSector...))
	m.MemoryBytes = 128 * unit.MiB
	_, err := near.driver.Launch(ctx, m)
	must(b, err)
	d, err := near.driver.Depart(ctx, m.Ref, id.New(), contract.MoveOptions{})
	must(b, err)
	to := m
	to.Epoch++
	to.Disks = []contract.Disk{m.Disks[0]}
	to.Disks[0].File.Path = filepath.Join(far.dir, m.VM.String()+".raw")
	must(b, emptyLike(to.Disks[0].File.Path, m.Disks[0]))
	landing, err := far.driver.Receive(ctx, to, d)
	must(b, err)
	wire := hypertest.NewWire(hypertest.Into(far.migrator, to.Ref))
	var last contract.Progress
	begin := clock.System{}.Boot()
	_, err = near.driver.Send(ctx, m.Ref, landing, wire.Dial, func(p contract.Progress) { last = p })
	must(b, err)
	_, err = far.driver.Arrived(ctx, to.Ref)
	must(b, err)
	_, err = far.driver.Resume(ctx, to.Ref)
	must(b, err)
	total = clock.System{}.Boot() - begin
	for h, r := range map[*harness]contract.Ref{near: m.Ref, far: to.Ref} {
		_, err := h.driver.Kill(ctx, r)
		must(b, err)
		must(b, h.driver.Release(ctx, r.VM))
	}
	return total, last.Downtime
}

// moveByHand is the floor.
func moveByHand(b *testing.B, h *harness) (total, down time.Duration) {
	b.Helper()
	ctx := b.Context()
	disk := filepath.Join(h.dir, "floor.raw")
	must(b, os.WriteFile(disk, append(append([]byte(nil), benchSector...), make([]byte, 1<<20-len(benchSector))...), 0o600))
	from, endFrom := handQEMU(b, h.dir, "from", disk)
	defer endFrom()
	to, endTo := handQEMU(b, h.dir, "to", disk, "-incoming", "defer")
	defer endTo()
	do := func(c *qmp.Client, command string, args, out any) {
		b.Helper()
		must(b, c.Execute(ctx, command, args, out))
	}
	type object = map[string]any
	for _, c := range []*qmp.Client{from, to} {
		do(c, "migrate-set-capabilities", object{"capabilities": []object{{"capability": "late-block-activate", "state": true}, {"capability": "return-path", "state": true}}}, nil)
		do(c, "migrate-set-parameters", object{"max-bandwidth": 16 * unit.GiB}, nil)
	}
	uri := object{"uri": "unix:" + filepath.Join(h.dir, "floor")}
	do(to, "migrate-incoming", uri, nil)
	do(from, "cont", nil, nil)
	begin := clock.System{}.Boot()
	do(from, "migrate", uri, nil)
	var is struct {
		Status   string `json:"status"`
		Downtime int64  `json:"downtime"`
	}
	for is.Status != "completed" {
		do(from, "query-migrate", nil, &is)
		if is.Status == "failed" {
			b.Fatal("it failed")
		}
		must(b, clock.System{}.Sleep(ctx, time.Millisecond))
	}
	do(to, "cont", nil, nil)
	return clock.System{}.Boot() - begin, time.Duration(is.Downtime) * time.Millisecond
}

// handQEMU starts QEMU with a machine as the driver's.
func handQEMU(b *testing.B, dir, name, disk string, more ...string) (*qmp.Client, func()) {
	b.Helper()
	path := filepath.Join(dir, name)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(b, err)
	f, err := l.File()
	must(b, err)
	ram := "/dev/shm/" + filepath.Base(dir) + "-" + name
	cmd := exec.CommandContext(b.Context(), qemuProgram(), append([]string{
		"-nodefaults", "-no-user-config", "-display", "none", "-S",
		"-machine", "q35,memory-backend=ram,usb=off,vmport=off", "-accel", "tcg,tb-size=256", "-cpu", "max",
		"-object", "memory-backend-file,id=ram,mem-path=" + ram + ",size=128M,share=on",
		"-blockdev", `{"driver":"file","node-name":"f","filename":"` + disk + `"}`,
		"-blockdev", `{"driver":"raw","node-name":"d","file":"f"}`,
		"-device", "virtio-blk-pci,drive=d,bootindex=0", "-device", "virtio-rng-pci", "-device", "virtio-balloon-pci",
		"-chardev", "socket,id=control,fd=3,server=on,wait=off", "-mon", "chardev=control,mode=control",
		"-chardev", "null,id=s", "-device", "isa-serial,chardev=s",
	}, more...)...)
	cmd.ExtraFiles = []*os.File{f}
	must(b, cmd.Start())
	_ = f.Close()
	c, err := qmp.Dial(b.Context(), path, qmp.Options{})
	must(b, err)
	return c, func() {
		_ = c.Execute(b.Context(), "quit", nil, nil)
		_ = cmd.Wait()
		_ = l.Close()
		_ = os.Remove(ram)
	}
}
