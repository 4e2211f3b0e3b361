package local

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/user"
	"runtime"
	"strconv"

	"github.com/novacron/novacron/internal/agent/daemon"
	"github.com/novacron/novacron/internal/engine/pglocal"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Options say what to run on this machine.
type Options struct {
	Paths Paths
	// Listen is host:port of the API; port 0 takes a free one and keeps it.
	Listen string
	// Advertise are the addresses other machines reach the server at.
	Advertise []string
	// Nodes is the number of real nodes, Sim of simulated ones.
	Nodes, Sim int
	// Database is the URL of an existing database, which takes the place of a private
	// PostgreSQL; DatabaseOwner the URL that may migrate it.
	Database, DatabaseOwner string
	// Acceleration forces "kvm" or "tcg".
	Acceleration string
	// ServerArgs are settings that are the server's own.
	ServerArgs []string
	// LogLevel is what servers and agents log from; empty for their default.
	LogLevel string
	// Bridges of this host that guests may join.
	Bridges []string
	// Pools are NAME=PATH of folders that all nodes have, for disks.
	Pools []string
	// Program is what children are started from; this program if empty.
	Program string
	Clock   clock.Clock
	Log     *slog.Logger
	// Say tells a person how far it is.
	Say func(string)
	// Ready is told once everything runs.
	Ready func(Summary)
}

// Summary is what a person needs to know of a running instance.
type Summary struct {
	PID         int    `json:"pid"`
	Address     string `json:"address"`
	Fingerprint string `json:"fingerprint"`
	// SetupToken makes a first administrator; empty once one was made, and known only
	// to whoever started the instance.
	SetupToken string `json:"setup_token,omitempty"`
	DataDir    string `json:"data_dir"`
	Socket     string `json:"socket"`
	Nodes      int    `json:"nodes"`
	Sim        int    `json:"sim,omitempty"`
}

// SystemUser owns the database and the server of root's instance; UserAdd makes
// it.
const (
	SystemUser = "novacron"
	UserAdd    = "useradd --system --user-group --home-dir " + rootData + " --no-create-home --shell /usr/sbin/nologin " + SystemUser
)

// maxNodes bounds --nodes: they share one host.
const maxNodes = 16

func (o Options) check() error {
	switch {
	case runtime.GOOS != "linux":
		return errs.New(errs.HostFailure, "NovaCron runs on Linux; this is %s", runtime.GOOS)
	case o.Nodes < 0 || o.Nodes > maxNodes:
		return errs.New(errs.OutOfRange, "one machine holds 0 to %d nodes", maxNodes)
	case o.Sim < 0 || o.Sim > 10_000:
		return errs.New(errs.OutOfRange, "--sim takes 0 to 10000 nodes")
	case o.DatabaseOwner != "" && o.Database == "":
		return errs.New(errs.InvalidField, "a database owner is named and no database")
	}
	if _, err := daemon.ReadPools(o.Pools); err != nil {
		return err
	}
	_, _, err := splitListen(o.Listen)
	return err
}

func splitListen(listen string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(listen)
	if _, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil {
		return "", "", errs.New(errs.InvalidField, "%q is not host:port of this machine, as in 127.0.0.1:8443", errs.Clip(listen))
	}
	return host, port, nil
}

// owner is the user that PostgreSQL and the server run as; nil for the caller.
func (o Options) owner() (*pglocal.Owner, error) {
	if uid := os.Geteuid(); uid != 0 {
		// PostgreSQL will not run as somebody without a name
		if _, err := user.LookupId(strconv.Itoa(uid)); err != nil {
			return nil, errs.New(errs.HostFailure, "user %d has no passwd entry, and PostgreSQL does not run without one: "+
				"add one, or run as another user", uid).Because(err)
		}
		return nil, nil
	}
	u, err := user.Lookup(SystemUser)
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the system user %s does not exist (PostgreSQL refuses to run as root): "+
			"run scripts/setup, or: %s", SystemUser, UserAdd).Because(err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err1 != nil || err2 != nil || uid == 0 {
		return nil, errs.New(errs.HostFailure, "the system user %s has no user id of its own", SystemUser)
	}
	return &pglocal.Owner{UID: uid, GID: gid}, nil
}

// advertised is where others reach the server: as told, else where it listens.
// Nobody can dial "every address", so one of this machine stands for it.
func (o Options) advertised(listen string) []string {
	if len(o.Advertise) > 0 {
		return o.Advertise
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil
	}
	if ip, err := netip.ParseAddr(host); host != "" && (err != nil || !ip.IsUnspecified()) {
		return []string{listen}
	}
	return []string{net.JoinHostPort(reachable(), port)}
}

// reachable is an address of this machine that others can probably reach.
func reachable() string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "127.0.0.1"
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return "127.0.0.1"
}
