package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/sshkey"
)

// cloudFlags are what a person says of a guest's first boot.
type cloudFlags struct {
	hostname                          string
	sshKeys                           []string
	userData, networkConfig, metaData string
	none                              bool
	seed                              string
}

func (f *cloudFlags) add(a *app, cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.hostname, "hostname", "", "host `name` of the guest, for cloud-init; by default that of the machine")
	fl.StringArrayVar(&f.sshKeys, "ssh-key", nil, "public SSH `key`, or the file that has it, to open the guest's first account; repeat it for more")
	fl.StringVar(&f.userData, "user-data", "", "user data for cloud-init: text, `@FILE`, or @- for standard input")
	fl.StringVar(&f.networkConfig, "network-config", "", "network configuration for cloud-init: text, `@FILE` or @-")
	fl.StringVar(&f.seed, "seed", "", "CD that the guest finds in its drive instead: an `image` imported with --iso")
	mustComplete(cmd.RegisterFlagCompletionFunc("seed", a.completeImages))
	fl.StringVar(&f.metaData, "meta-data", "", "further meta-data for cloud-init: text, `@FILE` or @-")
}

// given tells whether any of them is.
func (f *cloudFlags) given(cmd *cobra.Command) bool {
	for _, name := range []string{"hostname", "ssh-key", "user-data", "network-config", "meta-data", "no-cloud-init"} {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// edit gives what the flags make of what a guest is told; nil when they say
// nothing of it. Files are read at once.
func (f *cloudFlags) edit(a *app, cmd *cobra.Command) (func(*api.VMCloudInit) *api.VMCloudInit, error) {
	if !f.given(cmd) {
		return nil, nil
	}
	var sets []func(*api.VMCloudInit)
	changed := cmd.Flags().Changed
	if changed("hostname") {
		sets = append(sets, func(c *api.VMCloudInit) { c.Hostname = f.hostname })
	}
	for _, t := range []struct {
		flag, value string
		field       func(*api.VMCloudInit) *string
	}{
		{"user-data", f.userData, func(c *api.VMCloudInit) *string { return &c.UserData }},
		{"network-config", f.networkConfig, func(c *api.VMCloudInit) *string { return &c.NetworkConfig }},
		{"meta-data", f.metaData, func(c *api.VMCloudInit) *string { return &c.MetaData }},
	} {
		if !changed(t.flag) {
			continue
		}
		text, err := a.textOf(t.value)
		if err != nil {
			return nil, usage(cmd, "--%s: %s", t.flag, err)
		}
		sets = append(sets, func(c *api.VMCloudInit) { *t.field(c) = text })
	}
	if changed("ssh-key") {
		keys, err := f.keys(a)
		if err != nil {
			return nil, usage(cmd, "--ssh-key: %s", err)
		}
		sets = append(sets, func(c *api.VMCloudInit) { c.SSHAuthorizedKeys = keys })
	}
	return func(is *api.VMCloudInit) *api.VMCloudInit {
		var c api.VMCloudInit
		if is != nil && !f.none {
			c = *is
		}
		for _, set := range sets {
			set(&c)
		}
		return &c
	}, nil
}

// maxText is more than a server takes, so that it is the server that refuses.
const maxText = 1 << 20

// textOf gives what a flag's value stands for: itself, or what is in the file
// after an '@'.
func (a *app) textOf(value string) (string, error) {
	name, ok := strings.CutPrefix(value, "@")
	if !ok {
		return value, nil
	}
	return a.fileText(name)
}

// fileText reads a file, "-" for standard input. A "~" that no shell has expanded
// is the home folder.
func (a *app) fileText(name string) (string, error) {
	from := a.in
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		name = filepath.Join(a.env("HOME"), rest)
	}
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		from = f
	}
	b, err := io.ReadAll(io.LimitReader(from, maxText+1))
	if err == nil && len(b) > maxText {
		err = fmt.Errorf("%s is larger than %s", name, size(maxText))
	}
	return string(b), err
}

// keys reads each flag: a key, or the file that has some, a line each. What is no
// public key, such as a private one, does not leave this machine.
func (f *cloudFlags) keys(a *app) ([]string, error) {
	out := []string{}
	for _, text := range f.sshKeys {
		if !looksLikeKey(text) {
			var err error
			if text, err = a.fileText(strings.TrimPrefix(text, "@")); err != nil {
				return nil, err
			}
		}
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if _, err := sshkey.Parse(line); err != nil {
				return nil, errors.New(errs.As(err).Message)
			}
			out = append(out, line)
		}
	}
	return out, nil
}

// looksLikeKey tells a key from the name of a file: it begins with its type.
func looksLikeKey(s string) bool {
	kind, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	for _, begin := range []string{"ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"} {
		if rest != "" && strings.HasPrefix(kind, begin) {
			return true
		}
	}
	return false
}

// cloudPairs describe what a guest is told.
func cloudPairs(c *api.VMCloudInit) []output.Pair {
	if c == nil {
		return nil
	}
	pairs := []output.Pair{{Key: "hostname", Value: c.Hostname}}
	for i, line := range c.SSHAuthorizedKeys {
		shown := "?"
		if k, err := sshkey.Parse(line); err == nil {
			shown = strings.TrimSpace(k.Type + " " + k.Fingerprint + " " + k.Comment)
		}
		pairs = append(pairs, output.Pair{Key: "ssh key " + strconv.Itoa(i), Value: shown})
	}
	return append(pairs,
		output.Pair{Key: "user data", Value: glance(c.UserData)},
		output.Pair{Key: "network config", Value: glance(c.NetworkConfig)},
		output.Pair{Key: "meta-data", Value: glance(c.MetaData)},
	)
}

// glance is a text's first line and its size; documents have the whole.
func glance(text string) string {
	if text == "" {
		return ""
	}
	first, _, more := strings.Cut(text, "\n")
	if more {
		first += " …"
	}
	return fmt.Sprintf("%.60s (%s)", first, size(api.Bytes(len(text))))
}
