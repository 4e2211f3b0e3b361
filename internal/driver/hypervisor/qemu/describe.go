package qemu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"

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
	Accel   string  `json:"accel"`
	Reason  string  `json:"reason,omitempty"`
	models
}

type hostKey struct {
	Kernel string `json:"kernel"`
	Binary string `json:"binary"`
	Size   int64  `json:"size"`
	MTime  int64  `json:"mtime"`
	KVM    bool   `json:"kvm"` // whether /dev/kvm opens
	Asked  string `json:"asked,omitempty"`
	// Answers counts what is asked: a record of fewer answers is none.
	Answers int `json:"answers"`
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
		Machines:     slices.Clone(h.Machines), CPUs: slices.Clone(h.CPUs), Firmware: d.firmware.offered(),
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
		KVM: err == nil, Asked: d.opt.Accel, Answers: answers,
	}, nil
}

// examine asks QEMU and proves KVM.
func (d *Driver) examine(ctx context.Context, key hostKey) (hostRecord, error) {
	h := hostRecord{Key: key}
	said, err := exec.CommandContext(ctx, d.opt.Binary, "-version").Output() //nolint:gosec // the operator's choice
	if err == nil {
		h.Version, err = findVersion(string(said))
	}
	if err != nil {
		return h, errs.New(errs.HostFailure, "QEMU does not tell its version").Because(err)
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
	if err == nil {
		h.models, err = d.askModels(ctx, h.Accel)
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
