package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/novacron/novacron/internal/cli/local"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/near"
)

// The long-running commands take each setting from the first of: its flag, the
// environment (NOVACRON_SERVER_LISTEN for --listen of server), the config file
// (server: {listen: ...}), its default.

// configEnv names the config file.
const configEnv = "NOVACRON_CONFIG"

// sections of the config file are these commands.
var sections = []string{"up", "server", "agent"}

// otherEnv are names from before, which stand for several commands.
var otherEnv = map[string]string{
	"up.data-dir": "NOVACRON_DATA_DIR",
	"up.database": local.DatabaseEnv, "up.database-owner": local.DatabaseOwnerEnv,
	"server.database": local.DatabaseEnv, "server.database-owner": local.DatabaseOwnerEnv,
}

// neverShown are settings that may hold a secret.
var neverShown = []string{"database", "database-owner", "join"}

// setting is one setting of a command, with where its value is from.
type setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"`
}

// configured makes a command take its flags from the environment and the config
// file, too.
func (a *app) configured(cmd *cobra.Command) *cobra.Command {
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		_, err := a.resolve(cmd)
		return err
	}
	cmd.Long += "\n\nSettings are also taken from the environment (" + envName(cmd.Name(), "data-dir") +
		" and so on) and\nfrom the config file; see 'novacron config --help'."
	return cmd
}

func envName(section, flag string) string {
	return "NOVACRON_" + strings.ToUpper(section+"_"+strings.ReplaceAll(flag, "-", "_"))
}

// resolve sets the flags that the command line did not, and tells where each value
// is from.
func (a *app) resolve(cmd *cobra.Command) ([]setting, error) {
	path, values, err := a.readConfig()
	if err != nil {
		return nil, err
	}
	mine := values[cmd.Name()]
	if err := knownSettings(cmd, path, mine); err != nil {
		return nil, err
	}
	var out []setting
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if err != nil || f.Name == "help" {
			return
		}
		var origin string
		if origin, err = a.resolveOne(cmd, f, path, mine[f.Name]); err == nil {
			out = append(out, setting{f.Name, shown(f), origin})
		}
	})
	return out, err
}

// resolveOne gives one flag its value, and says where that is from.
func (a *app) resolveOne(cmd *cobra.Command, f *pflag.Flag, path string, filed []string) (origin string, err error) {
	if f.Changed {
		return "--" + f.Name, nil
	}
	for _, name := range []string{envName(cmd.Name(), f.Name), otherEnv[cmd.Name()+"."+f.Name]} {
		if v := a.env(name); name != "" && v != "" {
			return name, setFlag(cmd, f, name, []string{v})
		}
	}
	if len(filed) > 0 {
		return path, setFlag(cmd, f, path, filed)
	}
	return "default", nil
}

func setFlag(cmd *cobra.Command, f *pflag.Flag, origin string, values []string) error {
	for _, v := range values {
		if err := cmd.Flags().Set(f.Name, v); err != nil {
			return errs.New(errs.InvalidField, "%s: %q is no %s of '%s'", origin, errs.Clip(v), f.Name, cmd.CommandPath()).Because(err)
		}
	}
	return nil
}

func shown(f *pflag.Flag) string {
	if slices.Contains(neverShown, f.Name) && f.Value.String() != "" {
		return "[redacted]"
	}
	return f.Value.String()
}

// knownSettings refuses a setting that the command does not have: a misspelt one
// must not be passed over.
func knownSettings(cmd *cobra.Command, path string, mine map[string][]string) error {
	var have []string
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { have = append(have, f.Name) })
	for _, name := range slices.Sorted(maps.Keys(mine)) {
		if !slices.Contains(have, name) {
			return errs.New(errs.UnknownField, "%s: %s has no setting %q%s", path, cmd.Name(), errs.Clip(name), near.Hint(name, slices.Values(have)))
		}
	}
	return nil
}

// instanceEnv is the environment, in which the config file names this machine's
// instance where nothing else does: 'down' must mean the one that 'up' runs.
func (a *app) instanceEnv(name string) string {
	v := a.env(name)
	if v != "" || name != otherEnv["up.data-dir"] {
		return v
	}
	if v = a.env(envName("up", "data-dir")); v != "" {
		return v
	}
	if _, values, err := a.readConfig(); err == nil && len(values["up"]["data-dir"]) > 0 {
		return values["up"]["data-dir"][0]
	}
	return ""
}

// configPath is where the config file is, and whether somebody said so.
func (a *app) configPath() (path string, named bool) {
	if path := a.env(configEnv); path != "" {
		return path, true
	}
	if os.Geteuid() == 0 {
		return "/etc/novacron/config.yaml", false
	}
	dir := a.env("XDG_CONFIG_HOME")
	if dir == "" {
		dir = filepath.Join(a.env("HOME"), ".config")
	}
	return filepath.Join(dir, "novacron", "config.yaml"), false
}

// readConfig reads the file into settings by section and name; a file that
// nobody named may be missing.
func (a *app) readConfig() (path string, values map[string]map[string][]string, err error) {
	path, named := a.configPath()
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return path, nil, nil
	}
	if err != nil {
		return path, nil, errs.New(errs.HostFailure, "the config file %s cannot be read", path).Because(err)
	}
	values, err = parseConfig(raw)
	if err != nil {
		return path, nil, errs.New(errs.As(err).Code, "the config file %s: %s", path, errs.As(err).Message).Because(errors.Unwrap(err))
	}
	return path, values, nil
}

// parseConfig reads sections of settings, each a scalar or a list of scalars.
func parseConfig(raw []byte) (map[string]map[string][]string, error) {
	var doc map[string]map[string]yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, errs.New(errs.InvalidField, "it is not YAML with a section per command").Because(err)
	}
	if err := dec.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		return nil, errs.New(errs.InvalidField, "it holds more than one document")
	}
	out := map[string]map[string][]string{}
	for section, settings := range doc {
		if !slices.Contains(sections, section) {
			return nil, errs.New(errs.UnknownField, "there is no section %q%s; there are %s",
				errs.Clip(section), near.Hint(section, slices.Values(sections)), strings.Join(sections, ", "))
		}
		out[section] = map[string][]string{}
		for name, node := range settings {
			v, err := scalars(node)
			if err != nil {
				return nil, errs.New(errs.InvalidField, "%s.%s, line %d: %s", section, errs.Clip(name), node.Line, errs.As(err).Message)
			}
			out[section][strings.ReplaceAll(name, "_", "-")] = v
		}
	}
	return out, nil
}

func scalars(node yaml.Node) ([]string, error) {
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag != "!!null":
		return []string{node.Value}, nil
	case node.Kind == yaml.SequenceNode:
		var out []string
		for _, n := range node.Content {
			if n.Kind != yaml.ScalarNode {
				return nil, errs.New(errs.InvalidField, "its items are single values")
			}
			out = append(out, n.Value)
		}
		return out, nil
	}
	return nil, errs.New(errs.InvalidField, "it is a single value or a list of such")
}

const configLong = `The commands that go on running (up, server, agent) take each setting from the
first of these that has it:

  the flag          --listen 0.0.0.0:8443
  the environment   NOVACRON_SERVER_LISTEN=0.0.0.0:8443
  the config file   server: {listen: 0.0.0.0:8443}
  the default

The config file is the one that NOVACRON_CONFIG names, else
/etc/novacron/config.yaml for root and ~/.config/novacron/config.yaml for others.
It has a section per command, and a setting per flag:

  server:
    listen: 0.0.0.0:8443
    advertise: [s1.example:8443]
  agent:
    name: host-1`

func newConfig(a *app) *cobra.Command {
	cmd := group(a, "config", "What long-running commands are set to", newConfigShow(a))
	cmd.Long = configLong
	return cmd
}

func newConfigShow(a *app) *cobra.Command {
	var origin bool
	cmd := leaf("show up|server|agent", "Show what a command is set to", names("up|server|agent"), func(cmd *cobra.Command, args []string) error {
		of, ok := map[string]func(*app) *cobra.Command{"up": newUp, "server": newServer, "agent": newAgent}[args[0]]
		if !ok {
			return usage(cmd, "%q is none of %s", args[0], strings.Join(sections, ", "))
		}
		found, err := a.resolve(of(a))
		if err != nil {
			return err
		}
		columns := []output.Column[setting]{
			{Title: "setting", Cell: func(s setting) string { return s.Name }},
			{Title: "value", Cell: func(s setting) string { return s.Value }},
		}
		if origin {
			columns = append(columns, output.Column[setting]{Title: "from", Cell: func(s setting) string { return s.Origin }})
		}
		return output.List(a.printer(), found, columns)
	})
	cmd.Flags().BoolVar(&origin, "origin", false, "tell where each value is from")
	cmd.ValidArgs = sections
	cmd.Long = fmt.Sprintf("Show what a command would be set to if it were started here and now.\n%s are not shown.", strings.Join(neverShown, ", "))
	return cmd
}
