package qemu

import (
	"strconv"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// microOptions are those of a microvm. It has the clocks and the serial port of a real
// board, which kernels made for any machine look for; its virtio devices are of today's
// kind, not the first.
var microOptions = []string{
	"-machine", vm.MachineMicro + ",memory-backend=ram,usb=off,dump-guest-core=off,acpi=on,pit=on,pic=on,ioapic2=on,rtc=on,isa-serial=on",
	"-action", "panic=pause",
	"-global", "virtio-mmio.force-legacy=off",
}

func (s shape) micro() bool { return s.machine == vm.MachineMicro }

// microPlaces is how many devices a microvm takes, with its second interrupt controller.
const microPlaces = 24

// addVirtio adds a device as it hangs on the board. Guests look at the places of a
// microvm from the last to the first: so that is how they are taken.
func (w *jsonArgs) addVirtio(kind string, dev object) {
	dev["driver"] = "virtio-" + kind + "-pci"
	if w.micro {
		dev["driver"] = "virtio-" + kind + "-device"
		dev["bus"] = "virtio-mmio-bus." + strconv.Itoa(microPlaces-1-w.places)
		w.places++
	}
	w.add("-device", dev)
}

// asMicro gives the record without what a microvm does not have.
func asMicro(rec machineRecord) (machineRecord, error) {
	m := rec.Machine
	switch {
	case rec.Type != vm.MachineMicro:
		return rec, nil
	case m.UEFI():
		return rec, errs.New(errs.Unsupported, "a microvm does not start by %s: it has no flash for it", m.Firmware)
	case len(m.Disks)+len(m.NICs) > vm.MicroSlots:
		return rec, errs.New(errs.Unsupported, "a microvm has room for %d disks and network interfaces, and VM %s has %d",
			vm.MicroSlots, m.VM, len(m.Disks)+len(m.NICs))
	}
	rec.Machine.Screen = false
	return rec, nil
}

// noScreen says why a guest has none.
func (g *guest) noScreen() error {
	if g.rec.Type == vm.MachineMicro {
		return errs.New(errs.Unsupported, "VM %s has no screen, as it is a %s: its serial console is what it shows", g.ref.VM, vm.MachineMicro)
	}
	return errs.New(errs.Unsupported, "VM %s was started without a screen: it has one when it starts again", g.ref.VM)
}
