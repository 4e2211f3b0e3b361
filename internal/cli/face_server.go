package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/novacron/novacron/internal/cli/local"
	"github.com/novacron/novacron/internal/server"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

const serverLong = `Run the control plane: API, event stream, workflows, reconcilers.

A server keeps nothing: run as many as you like on one database. The database is
named by NOVACRON_DATABASE (the application's role) and, to migrate the schema at
the start, NOVACRON_DATABASE_OWNER; flags do the same, but a password in them is
shown by every list of processes.`

func newServer(a *app) *cobra.Command {
	o := server.Options{Clock: a.clock, Version: a.version}
	var level logLevel
	cmd := leaf("server", "Run the control plane", names(), func(cmd *cobra.Command, _ []string) error {
		if o.DatabaseURL == "" {
			o.DatabaseURL = a.env(local.DatabaseEnv)
		}
		if o.OwnerURL == "" {
			o.OwnerURL = a.env(local.DatabaseOwnerEnv)
		}
		if o.DatabaseURL == "" {
			return usage(cmd, "no database is named: set %s, or use 'novacron up' for a private one", local.DatabaseEnv)
		}
		o.Log = a.logger(level)
		tell := local.NewNotifier()
		o.Ready = func(i server.Info) {
			tell.Ready(local.Summary{Address: i.Address, Fingerprint: i.Fingerprint, SetupToken: i.SetupToken, PID: os.Getpid()})
			serviceReady()
			if a.isService() {
				i.SetupToken = "" // its output is a log
			}
			if !tell.Watched() {
				a.showServer(i)
			}
		}
		ignorePipes()
		err := server.Run(cmd.Context(), o)
		tell.Failed(err)
		return err
	})
	cmd.Long = serverLong
	f := cmd.Flags()
	f.StringVar(&o.DatabaseURL, "database", "", "`URL` of the database, as the application's role")
	f.StringVar(&o.OwnerURL, "database-owner", "", "`URL` of the database, as the role that migrates it")
	f.StringVar(&o.DataDir, "data-dir", "/var/lib/novacron/server", "`folder` of the key file and the images")
	f.StringVar(&o.Listen, "listen", "127.0.0.1:8443", "`host:port` of the API")
	f.StringSliceVar(&o.Advertise, "advertise", nil, "`host:port` others reach it at; what it listens on by default")
	f.StringVar(&o.Socket, "socket-path", "", "UNIX `socket` for administrators of this machine")
	f.Var(&uidList{&o.SocketUIDs}, "socket-uid", "`uid` that may use the socket, besides root; repeat it for more")
	f.BoolVar(&o.SetupToken, "setup-token", false, "make a fresh setup token, unless an administrator was made already")
	f.BoolVar(&o.Announce, "announce", true, "tell the local network of this server, where other machines reach it")
	addLimits(f, &o.Limits)
	level.add(cmd)
	return a.configured(cmd)
}

// addLimits adds the settings of what is taken of whom.
func addLimits(f *pflag.FlagSet, l *server.Limits) {
	f.Var((*networks)(&l.ImportNetworks), "import-networks", "private `networks` that images may be read from by their URL, such as 10.1.0.0/16; several are parted by commas")
	f.Float64Var(&l.AccountRate, "account-rate", server.DefaultAccountRate, "`requests` per second that one account may make; twice as many at once")
	f.Float64Var(&l.AddressRate, "address-rate", server.DefaultAddressRate, "`requests` per second without a good credential from one address; 30 times as many at once")
	f.Float64Var(&l.NodeRate, "node-rate", server.DefaultNodeRate, "`calls` per second of one node's agent, and 10 times as many at once; one that makes more is put into quarantine")
	f.IntVar(&l.Requests, "max-requests", 0, "`requests` worked on at once, of which one account gets two thirds; 0: as many as connections to the database")
	f.IntVar(&l.Relays, "max-relays", server.DefaultRelays, "`connections` joined at once between nodes that do not reach each other, of which a live migration has up to about ten; -1 for none")
	f.Var((*byteRate)(&l.RelayRate), "relay-bandwidth", "all of those together carry no more than this `size` per second, such as 200MiB; 0 for no limit")
	f.IntVar(&l.Streams, "max-streams", server.DefaultStreams, "`streams`, uploads and waits at once, of which one account gets two thirds")
}

// byteRate is a flag of bytes per second.
type byteRate int64

// String implements pflag.Value.
func (r *byteRate) String() string { return strconv.FormatInt(int64(*r), 10) }

// Set implements pflag.Value.
func (r *byteRate) Set(text string) error {
	n, err := unit.ParseBytes(text)
	*r = byteRate(n)
	return err
}

// Type implements pflag.Value.
func (r *byteRate) Type() string { return "size" }

// networks is a flag of networks, parted by commas.
type networks []netip.Prefix

// String implements pflag.Value.
func (n *networks) String() string {
	var all []string
	for _, p := range *n {
		all = append(all, p.String())
	}
	return strings.Join(all, ",")
}

// Set implements pflag.Value.
func (n *networks) Set(text string) error {
	*n = nil
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		p, err := netip.ParsePrefix(part)
		if err != nil || p != p.Masked() {
			return fmt.Errorf("%q is no network, such as 10.1.0.0/16", part)
		}
		*n = append(*n, p)
	}
	return nil
}

// Type implements pflag.Value.
func (n *networks) Type() string { return "networks" }

// limitArgs are the limits that somebody set, as arguments of a server.
func limitArgs(cmd *cobra.Command) (args []string) {
	var l server.Limits
	known := pflag.NewFlagSet("", pflag.ContinueOnError)
	addLimits(known, &l)
	known.VisitAll(func(f *pflag.Flag) {
		if set := cmd.Flags().Lookup(f.Name); set != nil && set.Changed {
			args = append(args, "--"+f.Name+"="+set.Value.String())
		}
	})
	return args
}

func (a *app) showServer(i server.Info) {
	fmt.Fprintf(a.out, "address      https://%s\nfingerprint  %s\n", i.Address, i.Fingerprint)
	if i.SetupToken != "" {
		fmt.Fprintf(a.out, "setup token  %s\n", i.SetupToken)
	}
}

// ignorePipes lets a process go on whose supervisor, and with it whoever read its
// output, is gone. Handlers are not inherited over exec, as ignoring would be.
func ignorePipes() {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGPIPE)
	go func() {
		for range ch {
		}
	}()
}

// logLevel is the flag of what to log; info when it is empty.
type logLevel string

// noLog logs nothing.
const noLog = "none"

func (l *logLevel) add(cmd *cobra.Command) {
	*l = "info"
	cmd.Flags().Var(l, "log-level", "log from this `level` on: debug, info, warn, error or "+noLog)
}

// String implements pflag.Value.
func (l *logLevel) String() string { return string(*l) }

// Type implements pflag.Value.
func (l *logLevel) Type() string { return "string" }

// Set implements pflag.Value.
func (l *logLevel) Set(s string) error {
	asked := logLevel(s)
	if _, err := asked.level(); err != nil {
		return errors.New("it is one of debug, info, warn, error, " + noLog)
	}
	*l = asked
	return nil
}

func (l *logLevel) level() (level slog.Level, err error) {
	if *l == "" || *l == noLog {
		return slog.LevelInfo, nil
	}
	return level, level.UnmarshalText([]byte(*l))
}

// logger logs to standard error.
func (a *app) logger(l logLevel) *slog.Logger {
	level, err := l.level()
	if err != nil || l == noLog {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
}

// signals gives the signals that end a long-running command, as they come.
func signals() (<-chan os.Signal, func()) {
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	return ch, func() { signal.Stop(ch) }
}

// detached keeps values of ctx and drops its end.
func detached(ctx context.Context) context.Context { return context.WithoutCancel(ctx) }

// uidList is a flag of user ids.
type uidList struct{ uids *[]uint32 }

// String implements pflag.Value.
func (u *uidList) String() string {
	if u.uids == nil || len(*u.uids) == 0 {
		return ""
	}
	return fmt.Sprint(*u.uids)
}

// Set implements pflag.Value.
func (u *uidList) Set(s string) error {
	var n uint32
	if _, err := fmt.Sscanf(s, "%d", &n); err != nil {
		return errs.New(errs.InvalidField, "%q is not a user id", errs.Clip(s))
	}
	*u.uids = append(*u.uids, n)
	return nil
}

// Type implements pflag.Value.
func (u *uidList) Type() string { return "uid" }
