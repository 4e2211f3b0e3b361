package tap

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// device is where taps are made.
const device = "/dev/net/tun"

// Spec is a tap wanted. All of it is made of words of ours but the bridge's name,
// which has to be one of Bridges.
type Spec struct {
	// Table is the node's table of filters.
	Table string
	// Name of the device, and of its chain: at most 15 characters.
	Name string
	// Bridge it joins.
	Bridge string
	// MAC is the only address that frames of the guest may have, lower case with colons.
	MAC string
}

var (
	nameForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)
	macForm  = regexp.MustCompile(`^[0-9a-f]{2}(:[0-9a-f]{2}){5}$`)
)

func (s Spec) validate() error {
	switch {
	case !nameForm.MatchString(s.Name):
		return fmt.Errorf("%q is no name for a tap", s.Name)
	case !macForm.MatchString(s.MAC):
		return fmt.Errorf("%q is no address", s.MAC)
	case !slices.Contains(Bridges(), s.Bridge):
		return fmt.Errorf("this host has no bridge %q", s.Bridge)
	}
	return nil
}

// Usable tells what is missing to join guests to bridges here; nil when nothing is.
func Usable() error {
	if os.Getuid() != 0 {
		return errors.New("the agent does not run as root")
	}
	if _, err := os.Stat(device); err != nil {
		return fmt.Errorf("the host has no %s", device)
	}
	return findNFT()
}

// Bridges lists the host's bridges, by name: those of the network that this process lives
// in, which what is mounted at /sys need not show.
func Bridges() []string {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = unix.Close(fd) }()
	var out []string
	for _, i := range all {
		info, err := unix.IoctlGetEthtoolDrvinfo(fd, i.Name)
		if err == nil && unix.ByteSliceToString(info.Driver[:]) == "bridge" {
			out = append(out, i.Name)
		}
	}
	slices.Sort(out)
	return out
}

// Exists tells whether the host has a network device of a name.
func Exists(name string) bool {
	_, err := net.InterfaceByName(name)
	return err == nil
}

// Open makes a tap, filters it, and joins it to its bridge, in this order. The device
// is there until the file, and what it was handed to, are closed. After an error
// nothing is left but a chain that RemoveFilter removes.
func Open(ctx context.Context, s Spec) (*os.File, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	f, err := makeTap(s.Name)
	if err != nil {
		return nil, fmt.Errorf("make tap %s: %w", s.Name, err)
	}
	err = SetFilter(ctx, s)
	if err == nil {
		err = addressLast(s.Name)
	}
	if err == nil {
		err = join(s)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// makeTap makes a device that nobody else has open.
func makeTap(name string) (*os.File, error) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	r, err := unix.NewIfreq(name)
	if err == nil {
		r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// hwRequest is Linux's struct ifreq with a hardware address (netdevice(7)).
type hwRequest struct {
	name   [unix.IFNAMSIZ]byte
	family uint16
	addr   [14]byte
	_      [8]byte
}

// addressLast gives a device an address above all that network cards have. A bridge has the
// lowest address of its ports, unless it was given one, and whoever speaks with the host
// through it would lose it each time a guest with a lower one comes or goes.
func addressLast(name string) error {
	r := hwRequest{family: unix.ARPHRD_ETHER}
	copy(r.name[:unix.IFNAMSIZ-1], name)
	_, _ = rand.Read(r.addr[:6])
	r.addr[0] = 0xfe // of one, and given by hand
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFHWADDR, uintptr(unsafe.Pointer(&r))); e != 0 {
		return fmt.Errorf("give tap %s an address: %w", name, e)
	}
	return nil
}

// join adds a device to its bridge and switches it on. The host itself has no
// address on it.
func join(s Spec) error {
	dev, err := net.InterfaceByName(s.Name)
	if err != nil {
		return err
	}
	// where the kernel has no IPv6, there is nothing to switch off
	_ = os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", s.Name, "disable_ipv6"), []byte("1"), 0)
	r, err := unix.NewIfreq(s.Bridge)
	if err != nil {
		return err
	}
	r.SetUint32(uint32(dev.Index))
	if err := control(unix.SIOCBRADDIF, r); err != nil {
		return fmt.Errorf("join tap %s to bridge %s: %w", s.Name, s.Bridge, err)
	}
	if err := flags(s.Name, unix.IFF_UP); err != nil {
		return fmt.Errorf("switch tap %s on: %w", s.Name, err)
	}
	return nil
}

// Disconnect switches a device off: nothing goes in or out.
func Disconnect(name string) error { return flags(name, 0) }

func flags(name string, to uint16) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	r.SetUint16(to)
	return control(unix.SIOCSIFFLAGS, r)
}

// control asks the kernel something about a device.
func control(request uint, r *unix.Ifreq) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.IoctlIfreq(fd, request, r)
}
