package cli

import (
	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/cli/output"
)

// hardwareFlags are what a person says of what a guest sees.
type hardwareFlags struct{ board, cpu, firmware string }

func (f *hardwareFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.board, "machine", "", "`type` of its board: q35, a version of it such as pc-q35-7.2, or microvm")
	fl.StringVar(&f.cpu, "cpu-model", "", "`model` of its processor: x86-64-v2 (by default), x86-64-v3, host, max, or one of QEMU's")
	fl.StringVar(&f.firmware, "firmware", "", "what it starts by: `bios, uefi or uefi-secure-boot`")
	mustComplete(cmd.RegisterFlagCompletionFunc("firmware", cobra.FixedCompletions([]string{"bios", "uefi", "uefi-secure-boot"}, cobra.ShellCompDirectiveNoFileComp)))
	mustComplete(cmd.RegisterFlagCompletionFunc("machine", cobra.FixedCompletions([]string{"q35", "microvm"}, cobra.ShellCompDirectiveNoFileComp)))
	mustComplete(cmd.RegisterFlagCompletionFunc("cpu-model", cobra.FixedCompletions([]string{"x86-64-v2", "x86-64-v3", "host", "max"}, cobra.ShellCompDirectiveNoFileComp)))
}

// machine is nil when nothing is said.
func (f *hardwareFlags) machine() *api.VMMachine {
	m := api.VMMachine{Type: f.board, CPU: f.cpu, Firmware: f.firmware}
	if m == (api.VMMachine{}) {
		return nil
	}
	return &m
}

func hardwarePairs(m *api.VMMachine) []output.Pair {
	if m == nil {
		return nil
	}
	return []output.Pair{{Key: "machine", Value: m.Type}, {Key: "cpu model", Value: m.CPU}, {Key: "firmware", Value: m.Firmware}}
}
