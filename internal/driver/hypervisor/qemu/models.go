package qemu

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// answers is how many questions askModels asks; it rises with each new one.
const answers = 1

// models are the boards and the processors that a build of QEMU has under an
// accelerator.
type models struct {
	// Machines are versions of q35, newest first.
	Machines []string `json:"machines"`
	CPUs     []string `json:"cpus"`
}

// baselines are levels of the x86-64 ABI, as models of QEMU that have them: each in
// one version, so that it stays the same with every QEMU.
var baselines = []struct {
	name, model string
	// emulated is what TCG cannot do of the model, and the level does not ask for.
	emulated []string
}{
	{vm.CPUBaseline2, "Westmere-v1", nil},
	{vm.CPUBaseline3, "Haswell-v2", []string{"pcid", "x2apic", "tsc-deadline", "invpcid"}},
}

// definition is what QEMU tells of one model of a processor.
type definition struct {
	Name        string   `json:"name"`
	Unavailable []string `json:"unavailable-features"`
	Deprecated  bool     `json:"deprecated"`
}

// askModels starts a QEMU without a machine and asks it.
func (d *Driver) askModels(ctx context.Context, accel string) (models, error) {
	ctx, cancel := d.within(ctx, proofTime)
	defer cancel()
	var machines []struct {
		Name string `json:"name"`
	}
	var cpus []definition
	err := d.ask(ctx, accel, func(c *qmp.Client) error {
		if err := c.Execute(ctx, "query-machines", nil, &machines); err != nil {
			return err
		}
		return c.Execute(ctx, "query-cpu-definitions", nil, &cpus)
	})
	if err != nil {
		return models{}, errs.New(errs.HostFailure, "QEMU does not tell its machines and processors").Because(err)
	}
	var names []string
	for _, m := range machines {
		names = append(names, m.Name)
	}
	out := models{Machines: boards(names), CPUs: processors(cpus, accel)}
	if len(out.Machines) == 0 {
		return out, errs.New(errs.HostFailure, "QEMU on this node has no q35 machine")
	}
	return out, nil
}

// ask runs a QEMU that executes nothing, for questions.
func (d *Driver) ask(ctx context.Context, accel string, questions func(*qmp.Client) error) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	theirs, ours := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	conn, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		_ = theirs.Close()
		return err
	}
	var complained bytes.Buffer
	cmd := exec.CommandContext(ctx, d.opt.Binary, //nolint:gosec // the operator's choice
		"-nodefaults", "-no-user-config", "-display", "none", "-S",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", "none", "-accel", accel,
		"-chardev", "socket,id=control,fd=3", "-mon", "chardev=control,mode=control")
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirs}, &complained
	// it goes with this agent, whatever ends that: nobody would ever ask it again. The
	// signal is the thread's, so the thread stays.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		_ = conn.Close()
		return err
	}
	err = converse(ctx, conn, questions)
	if waited := cmd.Wait(); err != nil {
		return fmt.Errorf("%w; %w: %s", err, cmp.Or(waited, err), strings.TrimSpace(complained.String()))
	}
	return nil
}

// converse asks, and has QEMU end.
func converse(ctx context.Context, conn net.Conn, questions func(*qmp.Client) error) error {
	c, err := qmp.New(ctx, conn, qmp.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	err = questions(c)
	if quit := c.Execute(ctx, "quit", nil, nil); err == nil {
		err = quit
	}
	return err
}

var versionOf = regexp.MustCompile(`^pc-q35-(\d+)\.(\d+)(?:\.(\d+))?$`)

// boards picks the versions of q35, the newest first.
func boards(names []string) []string {
	version := func(name string) (n int) {
		for _, part := range versionOf.FindStringSubmatch(name)[1:] {
			v, _ := strconv.Atoi(part) // digits, or nothing
			n = n*1000 + v
		}
		return n
	}
	var out []string
	for _, n := range names {
		if versionOf.MatchString(n) && vm.ValidBoard(n) {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Compare(version(b), version(a)) })
	return out
}

// processors are the models that guests can have whole: ours first.
func processors(defs []definition, accel string) []string {
	lacks := map[string][]string{}
	var named []string
	for _, c := range defs {
		lacks[c.Name] = c.Unavailable
		if len(c.Unavailable) == 0 && !c.Deprecated && vm.ValidCPU(c.Name) && !slices.Contains([]string{"base", vm.CPUHost, vm.CPUMax}, c.Name) {
			named = append(named, c.Name)
		}
	}
	var out []string
	for _, b := range baselines {
		missing, known := lacks[b.model]
		spared := func(feature string) bool { return accel == "tcg" && slices.Contains(b.emulated, feature) }
		if known && !slices.ContainsFunc(missing, func(f string) bool { return !spared(f) }) {
			out = append(out, b.name)
		}
	}
	if accel == "kvm" {
		out = append(out, vm.CPUHost)
	}
	slices.Sort(named)
	return append(append(out, vm.CPUMax), named...)
}

// unnamedCPU is the processor of a machine that names none.
func unnamedCPU(accel string) string {
	if accel == "kvm" {
		return vm.CPUHost
	}
	return vm.CPUMax
}

// cpuOption is a model as QEMU is told. But for "host" and "max", the guest gets all
// of it or does not start.
func cpuOption(model, accel string) string {
	switch model {
	case "":
		return unnamedCPU(accel)
	case vm.CPUHost, vm.CPUMax:
		return model
	}
	for _, b := range baselines {
		if b.name != model {
			continue
		}
		model = b.model
		if accel == "tcg" {
			for _, f := range b.emulated {
				model += ",-" + f
			}
		}
	}
	return model + ",enforce"
}

// fit gives the record of a machine with the board and the processor that it gets on
// this host; those of one that goes on from a saved memory are those it had.
func (h hostRecord) fit(rec machineRecord) (machineRecord, error) {
	m := rec.Machine
	if m.Incoming != "" {
		return asSuspended(rec)
	}
	rec.Type, rec.CPU = m.Type, cpuOption(m.CPU, rec.Accel)
	if rec.Type == "" || rec.Type == vm.MachineQ35 {
		rec.Type = h.Machines[0]
	}
	switch {
	case !slices.Contains(h.Machines, rec.Type):
		return rec, errs.New(errs.Unsupported, "QEMU %s of this node has no machine type %s: it has %s to %s",
			h.Version, rec.Type, h.Machines[len(h.Machines)-1], h.Machines[0])
	case m.CPU == vm.CPUHost && rec.Accel != "kvm":
		return rec, errs.New(errs.Unsupported, "this node cannot give its own processor (CPU model host) to guests: they run under %s", rec.Accel)
	case m.CPU != "" && !slices.Contains(h.CPUs, m.CPU):
		return rec, errs.New(errs.Unsupported, "this node does not offer CPU model %s under %s", m.CPU, rec.Accel)
	}
	return rec, nil
}
