package qemu

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// answers is how many questions askModels asks; it rises with each new one.
const answers = 2

// models are the boards and the processors that a build of QEMU has under an
// accelerator.
type models struct {
	// Machines are versions of q35, newest first, and then microvm.
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

// questions are all that is said to QEMU. Quitting is among them, so that it ends also
// when nobody lives to hear its answers.
const questions = `{"execute":"qmp_capabilities"}
{"execute":"query-machines","id":"machines"}
{"execute":"query-cpu-definitions","id":"cpus"}
{"execute":"quit"}
`

// askModels starts a QEMU without a machine and asks it.
func (d *Driver) askModels(ctx context.Context, accel string) (models, error) {
	ctx, cancel := d.within(ctx, proofTime)
	defer cancel()
	var machines []struct {
		Name string `json:"name"`
	}
	var cpus []definition
	said, err := d.ask(ctx, accel)
	if err == nil {
		err = errors.Join(answer(said, "machines", &machines), answer(said, "cpus", &cpus))
	}
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

// ask runs a QEMU that executes nothing, and gives what it says.
func (d *Driver) ask(ctx context.Context, accel string) ([]byte, error) {
	from, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _, _ = from.Close(), to.Close() }()
	// there before QEMU is; they fit into any pipe
	if _, err := to.WriteString(questions); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, d.opt.Binary, //nolint:gosec // the QEMU that the operator has named or installed, with words of ours
		"-nodefaults", "-no-user-config", "-display", "none", "-S",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", "none", "-accel", accel,
		"-chardev", "stdio,id=control,signal=off", "-mon", "chardev=control,mode=control")
	// QEMU has the other end, too: at the end of its input it would forget what it was asked
	cmd.Stdin, cmd.ExtraFiles = from, []*os.File{to}
	said, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return said, err
}

// answer finds one among the answers.
func answer(said []byte, question string, out any) error {
	for line := range bytes.Lines(said) {
		var a struct {
			ID     string          `json:"id"`
			Return json.RawMessage `json:"return"`
		}
		if json.Unmarshal(line, &a) == nil && a.ID == question && a.Return != nil {
			return json.Unmarshal(a.Return, out)
		}
	}
	return fmt.Errorf("no answer about its %s", question)
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
	if len(out) > 0 && slices.Contains(names, vm.MachineMicro) {
		out = append(out, vm.MachineMicro)
	}
	return out
}

// boardsFor names them for people.
func boardsFor(all []string) string {
	versions, micro := strings.CutSuffix(strings.Join(all, " "), " "+vm.MachineMicro)
	list := strings.Fields(versions)
	said := list[len(list)-1] + " to " + list[0]
	if micro {
		said += ", and " + vm.MachineMicro
	}
	return said
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

// hasBoard tells whether there is a type of a board.
func (h hostRecord) hasBoard(name string) bool { return slices.Contains(h.Machines, name) }

// fit gives the record of a machine with the board and the processor that it gets on
// this host; those of one that goes on from a saved memory are those it had.
func (h hostRecord) fit(rec machineRecord) (machineRecord, error) {
	m := rec.Machine
	if m.Incoming != "" {
		rec, err := asSuspended(rec)
		if err != nil {
			return rec, err
		}
		return asMicro(rec)
	}
	rec.Type, rec.CPU = m.Type, cpuOption(m.CPU, rec.Accel)
	if rec.Type == "" || rec.Type == vm.MachineQ35 {
		rec.Type = h.Machines[0]
	}
	switch {
	case !slices.Contains(h.Machines, rec.Type):
		return rec, errs.New(errs.Unsupported, "QEMU %s of this node has no machine type %s: it has %s",
			h.Version, rec.Type, boardsFor(h.Machines))
	case m.CPU == vm.CPUHost && rec.Accel != "kvm":
		return rec, errs.New(errs.Unsupported, "this node cannot give its own processor (CPU model host) to guests: they run under %s", rec.Accel)
	case m.CPU != "" && !slices.Contains(h.CPUs, m.CPU):
		return rec, errs.New(errs.Unsupported, "this node does not offer CPU model %s under %s", m.CPU, rec.Accel)
	}
	return asMicro(rec)
}
