package cli

import (
	"fmt"
	"maps"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// setFlags are what a person wants to be different of a VM.
type setFlags struct {
	name, memory string
	cpus         int
	labels       []string
	policy       policyFlags
	cloud        cloudFlags
	limits       limitFlags
	hardware     hardwareFlags
}

func newVMSet(a *app) *cobra.Command {
	var f setFlags
	var w *waitFlags
	cmd := leaf("set NAME", "Change the name, labels, size, limits, hardware or policies of a virtual machine", names("NAME"), func(cmd *cobra.Command, args []string) error {
		patch, set, unset, err := f.patch(cmd)
		if err != nil {
			return err
		}
		cloud, err := f.cloud.edit(a, cmd)
		if err != nil {
			return err
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		v, err := amend(cmd, c, args[0], func(is api.VM) api.VMPatch {
			patch.Labels = relabel(is.Labels, set, unset)
			if cloud != nil {
				patch.CloudInit = cloud(is.Spec.CloudInit)
			}
			return patch
		})
		if err != nil {
			return err
		}
		return a.wasSet(cmd, c, v, w)
	})
	cmd.Example = `  novacron vm set web --cpus 4 --memory 8GiB
  novacron vm set web --name web-old --label tier=retired --label owner-
  novacron vm set web --protect --restart on_failure
  novacron vm set web --cpu-weight 200 --cpu-cap 150
  novacron vm set db --start-order 1 --start-delay 30
  novacron vm set web --user-data @web.yaml --ssh-key ~/.ssh/id_ed25519.pub`
	cmd.Long = `Change the name, labels, size, limits, hardware or policies of a virtual machine,
all at once or nothing.

Name, labels and policies may change at any time, and so may weight and cap of CPUs:
one that runs is limited at once, by a job. CPUs, memory and hardware
change while it is stopped, to what its node has.

What cloud-init is told changes while it is stopped, and reaches the guest at
its next start. What is not named stays; --ssh-key replaces all keys. The guest
still is the same instance, so that cloud-init does not do again what it does
once per instance, such as running user data's commands. --seed '' takes a CD out
of the drive.`
	fl := cmd.Flags()
	fl.StringVar(&f.name, "name", "", "its new `name`")
	fl.IntVar(&f.cpus, "cpus", 0, "number of virtual CPUs")
	fl.StringVar(&f.memory, "memory", "", "`size` of its memory, such as 512MiB")
	fl.StringArrayVar(&f.labels, "label", nil, "set a label with `key=value`, or remove one with key-")
	f.policy.add(cmd)
	f.limits.add(cmd)
	w = a.addWait(cmd)
	f.cloud.add(a, cmd)
	f.hardware.add(cmd)
	fl.BoolVar(&f.cloud.none, "no-cloud-init", false, "tell cloud-init nothing but what other flags say")
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

// wasSet shows a VM that was changed, and the job that brings its guest new limits, if
// there is one.
func (a *app) wasSet(cmd *cobra.Command, c *client.Client, v api.VM, w *waitFlags) error {
	given := cmd.Flags().Changed
	limited := v.Status.Job != "" && (given("cpu-weight") || given("cpu-cap"))
	if limited && a.waits(cmd, w) {
		return a.follow(cmd.Context(), c, v.Status.Job, w.timeout)
	}
	if p := a.printer(); p.Format.ForPrograms() {
		return p.Document(v)
	}
	fmt.Fprintf(a.out, "%s: %s CPUs, %s, %s\n", output.Clean(v.Name), strconv.Itoa(v.Spec.CPUs), size(v.Spec.MemoryBytes), labelsOf(v))
	if limited {
		fmt.Fprintf(a.err, "its guest is limited by job %s; follow it with: novacron job wait %[1]s\n", v.Status.Job)
	}
	return nil
}

func (f setFlags) patch(cmd *cobra.Command) (p api.VMPatch, set map[string]string, unset []string, err error) {
	given := cmd.Flags().Changed
	if given("name") {
		p.Name = &f.name
	}
	if given("seed") {
		p.SeedImage = &f.cloud.seed
	}
	f.policy.patch(cmd, &p)
	f.limits.patch(cmd, &p)
	p.Machine = f.hardware.machine()
	if given("cpus") {
		p.CPUs = &f.cpus
	}
	if given("memory") {
		b, err := api.ParseBytes(f.memory)
		if err != nil {
			return p, nil, nil, usage(cmd, "--memory: %s", err)
		}
		p.MemoryBytes = &b
	}
	if set, unset, err = parseLabels(f.labels); err != nil {
		return p, nil, nil, usage(cmd, "--label: %s", errs.As(err).Message)
	}
	if p == (api.VMPatch{}) && len(f.labels) == 0 && !f.cloud.given(cmd) {
		return p, nil, nil, usage(cmd, "nothing to change is given: --name, --cpus, --memory, --label, --cpu-weight, --cpu-cap, --protect, --restart, --autostart, --start-order, --start-delay, --drain, --seed, --machine, --cpu-model, --firmware, or what cloud-init is told")
	}
	return p, set, unset, nil
}

func labelsOf(v api.VM) string {
	if len(v.Labels) == 0 {
		return "no labels"
	}
	return output.Clean(output.Labels(v.Labels))
}

func newVMLabel(a *app) *cobra.Command {
	cmd := leaf("label NAME key=value... key-...", "Set and remove labels of a virtual machine", someNames,
		func(cmd *cobra.Command, args []string) error {
			set, unset, err := parseLabels(args[1:])
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return usage(cmd, "no label is given: write key=value, or key- to remove one")
			}
			c, err := a.connect(cmd)
			if err != nil {
				return err
			}
			v, err := amend(cmd, c, args[0], func(is api.VM) api.VMPatch { return api.VMPatch{Labels: relabel(is.Labels, set, unset)} })
			if err != nil {
				return err
			}
			if p := a.printer(); p.Format.ForPrograms() {
				return p.Document(v)
			}
			fmt.Fprintf(a.out, "%s: %s\n", v.Name, output.Clean(output.Labels(v.Labels)))
			return nil
		})
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

// amendTries bounds how often a change is made anew over someone else's.
const amendTries = 5

// amend changes a VM as edit says for what it is: when another change comes
// between, it is read and the change made anew.
func amend(cmd *cobra.Command, c *client.Client, vm string, edit func(api.VM) api.VMPatch) (api.VM, error) {
	for n := 1; ; n++ {
		v, err := c.VMs.Get(cmd.Context(), vm)
		if err != nil {
			return v, err
		}
		v, err = c.VMs.Patch(cmd.Context(), v.ID, v.Revision, edit(v))
		if client.CodeOf(err) != string(errs.RevisionMismatch) || n == amendTries {
			return v, err
		}
	}
}

// relabel gives all labels with those named changed; nil when none is named.
func relabel(is, set map[string]string, unset []string) *map[string]string {
	if len(set)+len(unset) == 0 {
		return nil
	}
	labels := map[string]string{}
	maps.Copy(labels, is)
	maps.Copy(labels, set)
	for _, k := range unset {
		delete(labels, k)
	}
	return &labels
}
