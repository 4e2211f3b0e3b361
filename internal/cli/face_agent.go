package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/internal/agent/daemon"
	"github.com/novacron/novacron/internal/cli/local"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

const agentLong = `Run the agent of this host: it drives hypervisor, disks and network, and dials
out to the servers. It joins once, with a token from 'novacron node token'; from
then on it finds its servers by itself.

SIGTERM ends the agent and leaves its virtual machines running, to be adopted by
the next one: how an upgrade goes. SIGINT (Ctrl-C) shuts them down first; they
start again with the next agent, since nobody wanted them off. So does SIGTERM
to a service ('novacron install') when the machine itself shuts down.`

// agentFlags are what a person says of an agent.
type agentFlags struct {
	join, joinFile string
	imageCache     string
	pools          []string
	sim            int
}

func newAgent(a *app) *cobra.Command {
	o := daemon.Options{Clock: a.clock, Version: a.version}
	var f agentFlags
	var level logLevel
	cmd := leaf("agent", "Run the agent of this host", names(), func(cmd *cobra.Command, _ []string) error {
		tokens, err := a.joinTokens(f)
		if err != nil {
			return err
		}
		if f.imageCache != "" {
			if o.ImageCacheBytes, err = unit.ParseBytes(f.imageCache); err != nil {
				return err
			}
		}
		if o.Pools, err = daemon.ReadPools(f.pools); err != nil {
			return err
		}
		o.Log = a.logger(level)
		tell := local.NewNotifier()
		o.Ready = func() { tell.Ready(local.Summary{PID: os.Getpid()}) }
		ignorePipes()
		o.Started = serviceReady
		err = a.runAgent(detached(cmd.Context()), o, f, tokens)
		tell.Failed(err)
		return err
	})
	cmd.Long = agentLong
	fl := cmd.Flags()
	fl.StringVar(&o.DataDir, "data-dir", "/var/lib/novacron/node", "the node's `folder`")
	fl.StringVar(&o.Name, "name", "", "the node's `name` when it joins; the host's by default; with --sim NAME-1, NAME-2 and so on")
	fl.StringSliceVar(&o.Servers, "server", nil, "`host:port` of a server to dial besides those the node remembers")
	fl.StringVar(&f.join, "join", "", "join `token`, or - to read it; needed once")
	fl.StringVar(&f.joinFile, "join-file", "", "`file` of join tokens, one a line; it is removed when read")
	fl.StringVar(&o.RunDir, "run-dir", "", "`folder` of sockets; it must be short")
	fl.StringVar(&o.RAMDir, "ram-dir", "", "`folder` on a tmpfs for guests' memory")
	fl.StringVar(&o.Acceleration, "accel", "", "use `kvm|tcg` without proving it")
	fl.StringVar(&o.QEMU, "qemu", "", "the hypervisor's `program`; found in PATH by default")
	fl.IntVar(&o.Share, "share", 1, "this host holds `N` agents: offer one part in N of it")
	fl.StringVar(&f.imageCache, "image-cache", "", "keep image files for later up to this `size`, as in 50GiB; a tenth of the disk by default")
	fl.StringSliceVar(&o.Bridges, "bridges", nil, "`bridges` of this host that guests may join, as in br0,br1; none by default")
	fl.StringSliceVar(&f.pools, "pool", nil, "`NAME=PATH` of a folder that other nodes have, too, for disks; repeat it for more")
	fl.StringVar(&o.PeerAddress, "peer-address", "", "`address` of this host at which other nodes fetch image files and machines that move to them: the network of this node's migrations; relay to open no port and go by servers alone, or off for neither; the one that servers are reached from by default")
	fl.BoolVar(&o.Discover, "discover", true, "look for servers on the local network when none that is known can be reached")
	fl.IntVar(&f.sim, "sim", 0, "be `N` simulated nodes")
	cmd.MarkFlagsMutuallyExclusive("join", "join-file")
	level.add(cmd)
	return a.configured(cmd)
}

// joinTokens reads the tokens from where no list of processes shows them.
func (a *app) joinTokens(f agentFlags) ([]string, error) {
	if f.joinFile == "" {
		token, err := a.secret(f.join)
		if err != nil || token == "" {
			return nil, err
		}
		return []string{token}, nil
	}
	b, err := os.ReadFile(f.joinFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // an agent that has joined needs none
	}
	if err == nil {
		err = os.Remove(f.joinFile)
	}
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the file of join tokens cannot be read and removed").Because(err)
	}
	return strings.Fields(string(b)), nil
}

// runAgent runs until a signal: SIGINT shuts the guests down, any other leaves
// them. A second signal ends the agent where it stands, which leaves them too.
func (a *app) runAgent(ctx context.Context, o daemon.Options, f agentFlags, tokens []string) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	shutdown := make(chan struct{})
	o.Shutdown = shutdown
	ended := make(chan error, 1)
	go func() {
		if f.sim > 0 {
			ended <- daemon.RunSim(ctx, o, f.sim, tokens)
			return
		}
		if len(tokens) > 0 {
			o.Join = tokens[0]
		}
		ended <- daemon.Run(ctx, o)
	}()
	got, stop := signals()
	defer stop()
	select {
	case err := <-ended:
		return err
	case s := <-got:
		if s == syscall.SIGINT || a.isService() && !a.spares(s) {
			close(shutdown)
		}
		end()
	}
	select {
	case err := <-ended:
		return err
	case <-got:
		o.Log.Warn("ended before everything was in order; guests go on as they are")
		return nil
	}
}
