package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/internal/cli/local"
	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/vocab/errs"
)

const installLong = `Make NovaCron a service of this machine: everything (up, the default), a server,
or an agent. It needs root and systemd.

  - this program is copied to /usr/local/bin/novacron
  - the user novacron is made, if it is missing
  - /etc/novacron/config.yaml is written, if it is missing
  - a unit is written, enabled and started

Done again, with a newer program, it upgrades: program and unit are replaced and
the service is started anew. Virtual machines go on running meanwhile, as they do
with 'systemctl restart'. When the machine itself shuts down, they are shut down
gracefully, and started again with it.`

// installFlags are what a person says of an installation.
type installFlags struct {
	root     string
	noStart  bool
	joinFile string
}

func newInstall(a *app) *cobra.Command {
	var f installFlags
	cmd := leaf("install [up|server|agent]", "Make NovaCron a service of this machine", atMostOne, func(cmd *cobra.Command, args []string) error {
		u, err := unitFor(cmd, args)
		if err != nil {
			return err
		}
		i := &installer{app: a, flags: f, unit: u}
		return i.install(cmd.Context())
	})
	cmd.Long = installLong
	cmd.Example = `  sudo novacron install
  sudo novacron install agent --join-file token`
	cmd.ValidArgs = sections
	fl := cmd.Flags()
	fl.StringVar(&f.root, "root", "", "install below this `folder`, for making packages; implies --no-start")
	fl.BoolVar(&f.noStart, "no-start", false, "do not enable and start it")
	fl.StringVar(&f.joinFile, "join-file", "", "of an agent: `file` of its join token; it is moved away")
	return cmd
}

func newUninstall(a *app) *cobra.Command {
	var f installFlags
	cmd := leaf("uninstall [up|server|agent]", "Stop and remove the service", atMostOne, func(cmd *cobra.Command, args []string) error {
		u, err := unitFor(cmd, args)
		if err != nil {
			return err
		}
		i := &installer{app: a, flags: f, unit: u}
		return i.uninstall(cmd.Context())
	})
	cmd.Long = `Stop the service and remove its unit and, with the last one, the program. Virtual
machines that still run are left alone; data and settings stay: 'novacron clean'
removes data.`
	cmd.ValidArgs = sections
	cmd.Flags().StringVar(&f.root, "root", "", "what was installed below this `folder`")
	return cmd
}

func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage(cmd, "%q is too much: %s", args[1], cmd.UseLine())
	}
	return nil
}

func unitFor(cmd *cobra.Command, args []string) (service, error) {
	which := "up"
	if len(args) > 0 {
		which = args[0]
	}
	u, ok := services[which]
	if !ok {
		return service{}, usage(cmd, "%q is none of %s", which, strings.Join(sections, ", "))
	}
	return u, nil
}

// Where things are installed.
const (
	binPath    = "/usr/local/bin/novacron"
	unitDir    = "/etc/systemd/system"
	configFile = "/etc/novacron/config.yaml"
	joinPath   = "/etc/novacron/join"
)

// firstConfig is what the config file says at first: nothing but how.
const firstConfig = `# Settings of NovaCron's services; 'novacron config --help' says more, and
# 'novacron config show up --origin' what is in force.
#
# up:
#   listen: 0.0.0.0:8443
#   advertise: [cloud.example:8443]
# server:
#   database: postgres://novacron_server@db/novacron
#   listen: 0.0.0.0:8443
# agent:
#   name: host-1
`

// installer puts files into their places.
type installer struct {
	app   *app
	flags installFlags
	unit  service
}

func (i *installer) path(p string) string { return filepath.Join("/", i.flags.root, p) }

func (i *installer) sayf(format string, args ...any) { fmt.Fprintf(i.app.out, format+"\n", args...) }

func (i *installer) install(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		i.check, i.makeUser, i.copyProgram, i.writeConfig, i.takeToken, i.writeUnit, i.start,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (i *installer) writeUnit(context.Context) error {
	path := i.path(filepath.Join(unitDir, i.unit.name))
	if err := i.write(path, []byte(i.unit.text()), 0o644); err != nil {
		return err
	}
	i.sayf("wrote %s", path)
	return nil
}

func (i *installer) start(ctx context.Context) error {
	if i.flags.noStart || i.flags.root != "" {
		return nil
	}
	for _, line := range [][]string{{"daemon-reload"}, {"enable", i.unit.name}, {"restart", i.unit.name}} {
		if err := systemctl(ctx, line...); err != nil {
			return err
		}
	}
	i.sayf("%s runs; 'journalctl -u %s' has its log", i.unit.name, i.unit.name)
	return nil
}

// check refuses before anything is changed.
func (i *installer) check(context.Context) error {
	if i.flags.joinFile != "" && i.unit.face != "agent" {
		return errs.New(errs.InvalidField, "--join-file is for an agent: novacron install agent")
	}
	if i.flags.root != "" {
		return nil
	}
	if os.Geteuid() != 0 {
		return errs.New(errs.Forbidden, "a service is installed by root: run this with sudo")
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return errs.New(errs.HostFailure, "systemd does not run here: use 'novacron up --detach', or run 'novacron %s' under your own supervisor", i.unit.face)
	}
	return i.checkOthers()
}

// checkOthers refuses what would do another unit's work twice: up is a server and
// an agent already.
func (i *installer) checkOthers() error {
	for name, other := range services {
		twice := name != i.unit.face && (name == "up" || i.unit.face == "up")
		if twice && fileExists(i.path(filepath.Join(unitDir, other.name))) {
			return errs.New(errs.Conflict, "%s is installed, and %s would do its work twice: 'novacron uninstall %s' first", other.name, i.unit.name, name)
		}
	}
	return nil
}

func (i *installer) makeUser(ctx context.Context) error {
	if i.flags.root != "" || i.unit.face == "agent" {
		return nil
	}
	words := strings.Fields(local.UserAdd)
	out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput() //nolint:gosec // local.UserAdd is a constant of this program
	exit, failed := errors.AsType[*exec.ExitError](err)
	const alreadyThere = 9 // useradd(8)
	if err != nil && (!failed || exit.ExitCode() != alreadyThere) {
		return errs.New(errs.HostFailure, "the user %s cannot be made", local.SystemUser).Because(fmt.Errorf("%w: %s", err, out))
	}
	return nil
}

// copyProgram puts this very program into its place, over one that may be
// running.
func (i *installer) copyProgram(context.Context) error {
	to := i.path(binPath)
	from, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return errs.New(errs.HostFailure, "this program cannot read itself").Because(err)
	}
	if err := i.write(to, from, 0o755); err != nil {
		return err
	}
	i.sayf("copied this program to %s", to)
	return nil
}

func (i *installer) writeConfig(context.Context) error {
	path := i.path(configFile)
	if fileExists(path) {
		return nil
	}
	if err := i.write(path, []byte(firstConfig), 0o640); err != nil {
		return err
	}
	// it may hold the database's password, and the server reads it as its own user
	if g, err := user.LookupGroup(local.SystemUser); err == nil && i.flags.root == "" {
		if gid, err := strconv.Atoi(g.Gid); err == nil {
			_ = os.Chown(path, 0, gid)
		}
	}
	i.sayf("wrote %s", path)
	return nil
}

// takeToken moves a join token to where the unit looks for it.
func (i *installer) takeToken(context.Context) error {
	if i.flags.joinFile == "" {
		return nil
	}
	token, err := os.ReadFile(i.flags.joinFile)
	if err != nil {
		return errs.New(errs.NotFound, "the join token %s cannot be read", i.flags.joinFile).Because(err)
	}
	if err := i.write(i.path(joinPath), token, 0o600); err != nil {
		return err
	}
	return os.Remove(i.flags.joinFile)
}

// write replaces a file in one step, so that a running program is not written to
// and a crash leaves the old one or the new one.
func (i *installer) write(path string, content []byte, mode os.FileMode) error {
	err := os.MkdirAll(filepath.Dir(path), 0o755) //nolint:gosec // folders of the system, for all to read
	if err == nil {
		err = durable.Replace(path+".new", content, true)
	}
	if err == nil {
		err = errors.Join(os.Chmod(path+".new", mode), os.Rename(path+".new", path))
	}
	if err != nil {
		return errs.New(errs.HostFailure, "%s cannot be written", path).Because(err)
	}
	return nil
}

func (i *installer) uninstall(ctx context.Context) error {
	path := i.path(filepath.Join(unitDir, i.unit.name))
	if !fileExists(path) {
		return errs.New(errs.NotFound, "%s is not installed", i.unit.name)
	}
	live := i.flags.root == ""
	if live {
		if err := systemctl(ctx, "disable", "--now", i.unit.name); err != nil {
			return err
		}
	}
	gone := []string{path}
	last := !slices.ContainsFunc(sections, func(s string) bool {
		return s != i.unit.face && fileExists(i.path(filepath.Join(unitDir, services[s].name)))
	})
	if last {
		gone = append(gone, i.path(binPath))
	}
	for _, p := range gone {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errs.New(errs.HostFailure, "%s cannot be removed", p).Because(err)
		}
		i.sayf("removed %s", p)
	}
	if live {
		return systemctl(ctx, "daemon-reload")
	}
	return nil
}

func systemctl(ctx context.Context, words ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", words...).CombinedOutput()
	if err != nil {
		return errs.New(errs.HostFailure, "systemctl %s failed", strings.Join(words, " ")).
			Because(fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out))))
	}
	return nil
}

func fileExists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
