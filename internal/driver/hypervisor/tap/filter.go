package tap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// findNFT looks for the program that sets filters.
func findNFT() error {
	if _, err := exec.LookPath("nft"); err != nil {
		return errors.New("the program nft is not installed")
	}
	return nil
}

var tableForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)

// Table is a node's table, by its short id.
func Table(node string) string { return "novacron-" + node }

// SetFilter makes a tap's chain, or makes it anew: in one transaction, so that there is
// no moment without. The device is there.
func SetFilter(ctx context.Context, s Spec) error {
	if !tableForm.MatchString(s.Table) || !nameForm.MatchString(s.Name) || !macForm.MatchString(s.MAC) {
		return fmt.Errorf("%q, %q and %q are not words for a filter", s.Table, s.Name, s.MAC)
	}
	return nft(ctx, strings.Join([]string{
		"add table netdev " + s.Table,
		fmt.Sprintf("add chain netdev %s %s { type filter hook ingress device %q priority -500; policy drop; }", s.Table, s.Name, s.Name),
		fmt.Sprintf("flush chain netdev %s %s", s.Table, s.Name),
		// what bridges tell each other (IEEE 802.1D, reserved addresses)
		fmt.Sprintf("add rule netdev %s %s ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 counter drop", s.Table, s.Name),
		fmt.Sprintf("add rule netdev %s %s ether type { 0x8100, 0x88a8 } counter drop", s.Table, s.Name),
		fmt.Sprintf("add rule netdev %s %s ether saddr %s counter accept", s.Table, s.Name, s.MAC),
		fmt.Sprintf("add rule netdev %s %s counter drop", s.Table, s.Name),
	}, "\n")+"\n")
}

// RemoveFilter removes a tap's chain, and the table with its last one. Nothing there is
// fine.
func RemoveFilter(ctx context.Context, table, name string) error {
	if !tableForm.MatchString(table) || !nameForm.MatchString(name) {
		return fmt.Errorf("%q and %q are not words for a filter", table, name)
	}
	chains, err := Filters(ctx, table)
	if err != nil {
		return err
	}
	switch {
	case chains == nil:
		return nil
	case len(chains) == 0 || slices.Equal(chains, []string{name}):
		return nft(ctx, "delete table netdev "+table+"\n")
	case slices.Contains(chains, name):
		return nft(ctx, "delete chain netdev "+table+" "+name+"\n")
	}
	return nil
}

// RemoveTable removes all of a node's filters, for when it has no guest any more.
func RemoveTable(ctx context.Context, table string) error {
	chains, err := Filters(ctx, table)
	if err != nil || chains == nil {
		return err
	}
	return nft(ctx, "delete table netdev "+table+"\n")
}

// Filters lists the chains of a table; nil when there is no such table.
func Filters(ctx context.Context, table string) ([]string, error) {
	text, err := list(ctx, table)
	if err != nil || text == "" {
		return nil, err
	}
	out := []string{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "chain" {
			out = append(out, f[1])
		}
	}
	return out, nil
}

// Missing tells which of these taps are without their chain, or with another.
func Missing(ctx context.Context, table string, taps []Spec) ([]Spec, error) {
	text, err := list(ctx, table)
	if err != nil {
		return nil, err
	}
	var out []Spec
	for _, s := range taps {
		_, chain, _ := strings.Cut(text, "chain "+s.Name+" {")
		chain, _, _ = strings.Cut(chain, "}\n\n")
		if !strings.Contains(chain, "policy drop") || !strings.Contains(chain, "ether saddr "+s.MAC+" counter") {
			out = append(out, s)
		}
	}
	return out, nil
}

// list shows a table; empty when there is none.
func list(ctx context.Context, table string) (string, error) {
	if !tableForm.MatchString(table) {
		return "", fmt.Errorf("%q is no name of a table", table)
	}
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, "nft", "list", "table", "netdev", table)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		if strings.Contains(said.String(), "No such file or directory") {
			return "", nil
		}
		return "", fmt.Errorf("list the filters of guests: %w: %s", err, firstLine(said.String()))
	}
	return out.String(), nil
}

// nft carries a script out, all of it or nothing.
func nft(ctx context.Context, script string) error {
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin, cmd.Stderr = strings.NewReader(script), &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("set the filters of guests: %w: %s", err, firstLine(said.String()))
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
