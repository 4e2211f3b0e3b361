package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/internal/cli/local"
	"github.com/novacron/novacron/internal/server"
	"github.com/novacron/novacron/internal/vocab/errs"
)

const upLong = `Run everything on this machine: a private PostgreSQL, a server, and an agent per
node, each as a process of its own under this one.

As a service ('novacron install'), SIGTERM leaves virtual machines running, unless
the machine itself shuts down. Otherwise:

Ctrl-C and 'novacron down' shut the virtual machines down gracefully and stop
everything; the next 'up' starts them again. A second Ctrl-C leaves them running.
If this process is killed, its children end by themselves and virtual machines go
on; the next 'up' adopts them.

As root, PostgreSQL and the server run as the user novacron, agents as root, and
data is kept in /var/lib/novacron. As another user everything runs as that user,
with data in $XDG_DATA_HOME/novacron.`

// upFlags are what a person says of an instance.
type upFlags struct {
	dataDir string
	detach  bool
}

func newUp(a *app) *cobra.Command {
	o := local.Options{Clock: a.clock}
	var f upFlags
	var level logLevel
	var limits server.Limits
	cmd := leaf("up", "Run everything on this machine", names(), func(cmd *cobra.Command, _ []string) error {
		var err error
		if o.Paths, err = a.paths(f.dataDir); err != nil {
			return err
		}
		o.LogLevel, o.ServerArgs = string(level), limitArgs(cmd)
		if o.Sim > 0 && !cmd.Flags().Changed("nodes") {
			o.Nodes = 0 // a data centre to try out needs no real host in it
		}
		if o.Database == "" {
			o.Database, o.DatabaseOwner = a.env(local.DatabaseEnv), a.env(local.DatabaseOwnerEnv)
		}
		if f.detach {
			return a.upDetached(cmd.Context(), o)
		}
		return a.upHere(cmd.Context(), o)
	})
	cmd.Long = upLong
	cmd.Example = `  novacron up --detach
  novacron up --nodes 3
  novacron up --sim 1000`
	fl := cmd.Flags()
	fl.StringVar(&f.dataDir, "data-dir", "", "`folder` of all data (NOVACRON_DATA_DIR)")
	fl.StringVar(&o.Listen, "listen", "127.0.0.1:8443", "`host:port` of the API; port 0 takes a free one")
	fl.StringSliceVar(&o.Advertise, "advertise", nil, "`host:port` other machines reach it at")
	fl.IntVar(&o.Nodes, "nodes", 1, "this machine as `N` nodes; none by default with --sim")
	fl.IntVar(&o.Sim, "sim", 0, "`N` simulated nodes")
	fl.StringVar(&o.Database, "database", "", "`URL` of a database to use instead of a private one ("+local.DatabaseEnv+")")
	fl.StringVar(&o.DatabaseOwner, "database-owner", "", "`URL` of it for the role that migrates ("+local.DatabaseOwnerEnv+")")
	level.add(cmd)
	addLimits(fl, &limits)
	fl.StringSliceVar(&o.Pools, "pool", nil, "`NAME=PATH` of a folder for disks that all nodes have; repeat it for more")
	fl.StringSliceVar(&o.Bridges, "bridges", nil, "`bridges` of this host that guests may join, as in br0,br1; none by default")
	fl.StringVar(&o.Acceleration, "accel", "", "use `kvm|tcg` without proving it")
	fl.BoolVarP(&f.detach, "detach", "d", false, "return once everything runs")
	return a.configured(cmd)
}

// paths are the places of the instance that a flag, the environment or the user
// means.
func (a *app) paths(dataDir string) (local.Paths, error) {
	if dataDir == "" {
		dataDir = local.DefaultData(os.Getuid(), a.instanceEnv)
	}
	abs, err := filepath.Abs(dataDir)
	if err != nil {
		return local.Paths{}, errs.New(errs.HostFailure, "the current folder is gone: name --data-dir from the root").Because(err)
	}
	if abs == "/" || strings.ContainsAny(abs, "\n\x00") {
		return local.Paths{}, errs.New(errs.InvalidField, "%q is no place for data", errs.Clip(abs))
	}
	return local.PathsOf(abs, os.Getuid(), a.env), nil
}

func (a *app) upHere(ctx context.Context, o local.Options) error {
	tell := local.NewNotifier()
	got, stop := signals()
	defer stop()
	ctx, end := context.WithCancel(detached(ctx))
	defer end()
	hurry := make(chan os.Signal, 4)
	go func() {
		for s := range got {
			if ctx.Err() != nil || a.spares(s) {
				hurry <- s
			}
			end()
		}
	}()
	o.Log = a.logger(logLevel(o.LogLevel))
	o.Say = func(s string) {
		tell.Say(s)
		fmt.Fprintln(a.err, s)
	}
	o.Ready = func(s local.Summary) {
		tell.Ready(s)
		serviceReady()
		if a.isService() {
			s.SetupToken = "" // its output is a log
		}
		if !tell.Watched() {
			a.showInstance(s, false)
		}
	}
	ignorePipes()
	err := local.Up(ctx, o, hurry)
	tell.Failed(err)
	return err
}

func (a *app) upDetached(ctx context.Context, o local.Options) error {
	o.Say = func(s string) { fmt.Fprintln(a.err, s) }
	s, already, err := local.Detach(ctx, o)
	if err != nil {
		return err
	}
	a.showInstance(s, already)
	return nil
}

// showInstance prints what a person needs next. A detached instance's own output
// is a log, which must not hold the setup token: there, whoever waits prints it.
func (a *app) showInstance(s local.Summary, already bool) {
	p := a.printer()
	if p.Format.ForPrograms() {
		_ = p.Document(s)
		return
	}
	if already {
		fmt.Fprintln(a.out, "NovaCron runs already")
	} else {
		fmt.Fprintln(a.out, "NovaCron is running")
	}
	fmt.Fprint(a.out, s.String())
	fmt.Fprintln(a.out, "\nTry next:")
	if all, err := a.loadContexts(); s.Socket != local.Sockets(os.Getuid(), a.instanceEnv)[0] || err != nil || all.Current != "" {
		// commands would look elsewhere
		fmt.Fprintf(a.out, "  export NOVACRON_SOCKET=%s\n", s.Socket)
	}
	fmt.Fprintln(a.out, "  novacron status\n  novacron vm list")
	if s.SetupToken != "" {
		fmt.Fprintf(a.out, "From another machine:\n  novacron context add NAME --address %s --fingerprint %s --setup-token -\n",
			s.Address, s.Fingerprint)
	}
}

func newDown(a *app) *cobra.Command {
	var dataDir string
	cmd := leaf("down", "Stop what 'up' runs, virtual machines gracefully", names(), func(cmd *cobra.Command, _ []string) error {
		p, err := a.paths(dataDir)
		if err != nil {
			return err
		}
		ran, err := local.Down(cmd.Context(), p, a.clock)
		switch {
		case err != nil:
			return err
		case ran:
			fmt.Fprintln(a.out, "NovaCron has stopped")
		default:
			fmt.Fprintln(a.out, "NovaCron was not running")
		}
		if left := local.Leftovers(p); len(left) > 0 {
			fmt.Fprintf(a.err, "%d virtual machines still run; 'novacron up' adopts them\n", len(left))
		}
		return nil
	})
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "`folder` of the instance's data")
	return cmd
}

func newClean(a *app) *cobra.Command {
	var dataDir string
	var sure bool
	cmd := leaf("clean", "Remove all data of a stopped instance", names(), func(cmd *cobra.Command, _ []string) error {
		p, err := a.paths(dataDir)
		if err != nil {
			return err
		}
		if !sure {
			return usage(cmd, "this removes all virtual machines, images and history in %s for ever: say --yes to do it", p.Data)
		}
		removed, err := local.Clean(p)
		for _, path := range removed {
			fmt.Fprintln(a.out, "removed "+path)
		}
		return err
	})
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "`folder` of the instance's data")
	cmd.Flags().BoolVarP(&sure, "yes", "y", false, "do it")
	return cmd
}
