package qemu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// hostFile keeps what was found out about the hypervisor.
const hostFile = "hypervisor.json"

// hostRecord is hypervisor.json. It holds for one kernel and one build of QEMU.
type hostRecord struct {
	Key     hostKey `json:"key"`
	Version string  `json:"version"`
	// Machine is the newest versioned machine type, which new guests get, so that
	// their hardware does not change under them with the next QEMU.
	Machine string `json:"machine"`
	Accel   string `json:"accel"`
	Reason  string `json:"reason,omitempty"`
}

type hostKey struct {
	Kernel string `json:"kernel"`
	Binary string `json:"binary"`
	Size   int64  `json:"size"`
	MTime  int64  `json:"mtime"`
	KVM    bool   `json:"kvm"` // whether /dev/kvm opens
	Asked  string `json:"asked,omitempty"`
}

// Describe implements contract.Driver.
func (d *Driver) Describe(ctx context.Context) (contract.Description, error) {
	h, err := d.describe(ctx)
	if err != nil {
		return contract.Description{}, err
	}
	return contract.Description{
		Hypervisor:   "qemu",
		Version:      h.Version,
		Acceleration: contract.Acceleration{Kind: h.Accel, Reason: h.Reason},
	}, nil
}

// describe gives the cached answer, or finds it out; one caller at a time.
func (d *Driver) describe(ctx context.Context) (hostRecord, error) {
	select {
	case d.describing <- struct{}{}:
		defer func() { <-d.describing }()
	case <-ctx.Done():
		return hostRecord{}, errs.New(errs.Timeout, "the hypervisor is still being examined").Because(ctx.Err())
	}
	key, err := d.hostKey()
	if err != nil {
		return hostRecord{}, err
	}
	if d.found.Key == key {
		return d.found, nil
	}
	var kept hostRecord
	if err := durable.ReadJSON(d.data, hostFile, &kept); err == nil && kept.Key == key {
		d.found = kept
		return kept, nil
	}
	fresh, err := d.examine(ctx, key)
	if err != nil {
		return hostRecord{}, err
	}
	if err := durable.WriteJSON(d.data, hostFile, fresh); err != nil {
		d.log.Warn("the proof of acceleration is not kept and will be repeated", "error", err)
	}
	d.found = fresh
	return fresh, nil
}

func (d *Driver) hostKey() (hostKey, error) {
	info, err := os.Stat(d.opt.Binary)
	if err != nil {
		return hostKey{}, errs.New(errs.HostFailure, "QEMU is no longer installed on this node").Because(err)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return hostKey{}, err
	}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err == nil {
		_ = kvm.Close()
	}
	return hostKey{
		Kernel: unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Version[:]),
		Binary: d.opt.Binary, Size: info.Size(), MTime: info.ModTime().UnixNano(),
		KVM: err == nil, Asked: d.opt.Accel,
	}, nil
}

// examine asks QEMU and proves KVM.
func (d *Driver) examine(ctx context.Context, key hostKey) (hostRecord, error) {
	h := hostRecord{Key: key}
	ask := func(args ...string) (string, error) {
		said, err := exec.CommandContext(ctx, d.opt.Binary, args...).Output() //nolint:gosec // the operator's choice
		return string(said), err
	}
	said, err := ask("-version")
	if err == nil {
		h.Version, err = findVersion(said)
	}
	if err == nil {
		said, err = ask("-machine", "help")
	}
	if err == nil {
		h.Machine, err = newestMachine(said)
	}
	if err != nil {
		return h, errs.New(errs.HostFailure, "QEMU does not tell its version and machines").Because(err)
	}
	switch {
	case key.Asked == "tcg":
		h.Accel, h.Reason = "tcg", "this node is configured to use TCG; it is slow and no isolation boundary"
	case key.Asked == "kvm":
		h.Accel = "kvm"
	case !key.KVM:
		h.Accel, h.Reason = "tcg", "this node has no usable /dev/kvm; TCG is slow and no isolation boundary"
	default:
		h.Accel, h.Reason, err = d.proveKVM(ctx)
	}
	return h, err
}

var versionForm = regexp.MustCompile(`version (\d+\.\d+(?:\.\d+)?)`)

func findVersion(said string) (string, error) {
	m := versionForm.FindStringSubmatch(said)
	if m == nil {
		return "", errors.New("no version in its answer")
	}
	return m[1], nil
}

var machineForm = regexp.MustCompile(`(?m)^pc-q35-(\d+)\.(\d+)\s`)

// newestMachine picks the versioned q35 type with the highest version.
func newestMachine(list string) (string, error) {
	best, name := -1, ""
	for _, m := range machineForm.FindAllStringSubmatch(list, -1) {
		major, err1 := strconv.Atoi(m[1])
		minor, err2 := strconv.Atoi(m[2])
		if v := major*1000 + minor; err1 == nil && err2 == nil && v > best {
			best, name = v, strings.TrimSpace(m[0])
		}
	}
	if name == "" {
		return "", errors.New("it has no q35 machine")
	}
	return name, nil
}
