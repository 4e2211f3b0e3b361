package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/agent/daemon"
	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/engine/pglocal"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// The children, by name; agents are named like their nodes.
const (
	postgresName = "postgres"
	serverName   = "server"
	simName      = "sim"
)

// DatabaseEnv and DatabaseOwnerEnv hand database URLs to the server: they may hold
// a password, which no list of processes must show.
const (
	DatabaseEnv      = "NOVACRON_DATABASE"
	DatabaseOwnerEnv = "NOVACRON_DATABASE_OWNER"
)

func (s *supervisor) pgOptions() pglocal.Options {
	return pglocal.Options{Dir: s.o.Paths.postgres(), SocketDir: s.o.Paths.pgSocket(), Owner: s.owner, Clock: s.o.Clock}
}

func (s *supervisor) startPostgres(ctx, life context.Context) error {
	bin, err := pglocal.Find(ctx, "", 0)
	if err != nil {
		return err
	}
	s.say(fmt.Sprintf("starting PostgreSQL %d", bin.Major))
	s.postgres = s.launch(life, spec{
		name: postgresName, command: s.postgresCommand, orphan: pglocal.StopSignal,
		signals: []stopStep{{pglocal.StopSignal, 30 * time.Second}, {syscall.SIGQUIT, 10 * time.Second}},
	})
	wait, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return s.pgOptions().Connect(wait, func() error {
		select {
		case m := <-s.postgres.messages:
			if m.Error != nil {
				return m.Error.err()
			}
		default:
		}
		return nil
	})
}

// postgresCommand prepares the database anew for each start: what an earlier
// server left behind, also a live one, is done with then.
func (s *supervisor) postgresCommand(ctx context.Context) (*exec.Cmd, func(), error) {
	o := s.pgOptions()
	var err error
	if o.Log, err = s.postgresLog(); err != nil {
		return nil, nil, err
	}
	wait, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	cluster, err := pglocal.Prepare(wait, o)
	if errors.Is(err, pglocal.ErrRunning) {
		if err = pglocal.StopRunning(wait, o); err == nil {
			cluster, err = pglocal.Prepare(wait, o)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	cmd := cluster.Command()
	cmd.WaitDelay = 5 * time.Second
	return cmd, func() { _ = cluster.Close() }, nil
}

// self makes a command of this very program, even if its file was replaced or lies
// where the server's user cannot go.
func (s *supervisor) self(name string, args ...string) (cmd *exec.Cmd, done func(), err error) {
	out, err := openLog(s.o.Paths.log(name))
	if err != nil {
		return nil, nil, err
	}
	program := s.o.Program
	if program == "" {
		program = "/proc/self/exe"
	}
	if s.o.LogLevel != "" {
		args = append(args, "--log-level", s.o.LogLevel)
	}
	cmd = exec.Command(program, args...) //nolint:noctx // it outlives what starts it, and is stopped by signals
	cmd.Args[0] = "novacron"
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.Env = environment()
	return cmd, func() { _ = out.Close() }, nil
}

// environment hands on what concerns the system and nothing that concerns a
// person's session.
func environment() []string {
	// what the supervisor was set to, it tells them by flags
	env := []string{"NOVACRON_CONFIG=/dev/null"}
	for _, kv := range os.Environ() {
		k, _, _ := strings.Cut(kv, "=")
		switch k {
		case "PATH", "HOME", "TZ", "LANG", "LC_ALL", "TMPDIR", "XDG_RUNTIME_DIR", "GOCOVERDIR", "GOMAXPROCS", "GODEBUG":
			env = append(env, kv)
		}
	}
	return env
}

func (s *supervisor) serverSpec() spec {
	first := true
	return spec{
		name: serverName, orphan: syscall.SIGTERM, signals: []stopStep{{syscall.SIGTERM, 20 * time.Second}},
		command: func(context.Context) (*exec.Cmd, func(), error) {
			args := []string{
				"server", "--data-dir", s.o.Paths.server(), "--listen", s.listen,
				"--advertise", strings.Join(s.o.advertised(s.listen), ","),
				"--socket-path", s.o.Paths.Socket(), "--socket-uid", strconv.Itoa(os.Getuid()),
			}
			args = append(args, s.o.ServerArgs...)
			if first {
				// one token is shown; a server that comes back must not void it
				args = append(args, "--setup-token")
				first = false
			}
			cmd, done, err := s.self(serverName, args...)
			if err != nil {
				return nil, nil, err
			}
			app, owner := s.o.Database, s.o.DatabaseOwner
			if app == "" {
				app, owner = s.pgOptions().AppURL(), s.pgOptions().OwnerURL()
			}
			cmd.Env = append(cmd.Env, DatabaseEnv+"="+app, DatabaseOwnerEnv+"="+owner)
			if s.owner != nil {
				cmd.SysProcAttr = &syscall.SysProcAttr{
					Credential: &syscall.Credential{Uid: uint32(s.owner.UID), Gid: uint32(s.owner.GID)},
				}
			}
			return cmd, done, nil
		},
	}
}

// startAgents starts all nodes at once and waits for each.
func (s *supervisor) startAgents(ctx, life context.Context) error {
	c, err := s.local()
	if err != nil {
		return err
	}
	for i := 1; i <= s.o.Nodes; i++ {
		s.startAgent(life, c, nodeName(i), s.nodeArgs(i), func() int {
			if exists(filepath.Join(s.o.Paths.node(i), "node.json")) {
				return 0
			}
			return 1
		})
	}
	if s.o.Sim > 0 {
		args := []string{"--data-dir", s.o.Paths.simDir(), "--sim", strconv.Itoa(s.o.Sim)}
		if s.o.Nodes == 0 { // what simulated nodes write is no disk for real ones
			args = append(args, s.o.poolArgs()...)
		}
		s.startAgent(life, c, simName, args, func() int { return daemon.Unjoined(s.o.Paths.simDir(), s.o.Sim) })
	}
	for _, a := range s.agents {
		s.say("waiting for " + a.spec.name)
		if _, err := s.awaitReady(ctx, a); err != nil {
			return err
		}
	}
	return s.awaitReports(ctx, c)
}

// awaitReports waits until the nodes of this instance can be given VMs: a node
// that has just joined has still to report. One that does not is shown as unknown
// and is no reason to fail.
func (s *supervisor) awaitReports(ctx context.Context, c *client.Client) error {
	const patience = 10 * time.Second
	ours := map[string]bool{}
	for i := 1; i <= s.o.Nodes; i++ {
		ours[nodeName(i)] = true
	}
	for until := s.o.Clock.Boot() + patience; s.o.Clock.Boot() < until; {
		missing := 0
		for n, err := range c.Nodes.All(ctx, client.ListOptions{}) {
			if err != nil {
				return err
			}
			if n.Status.State == "unknown" && (ours[n.Name] || n.Status.Simulated) {
				missing++
			}
		}
		if missing == 0 {
			return nil
		}
		if err := s.o.Clock.Sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func (s *supervisor) nodeArgs(i int) []string {
	args := []string{
		"--data-dir", s.o.Paths.node(i), "--name", nodeName(i),
		"--run-dir", s.o.Paths.guests(), "--ram-dir", s.o.Paths.RAM,
	}
	if s.o.Acceleration != "" {
		args = append(args, "--accel", s.o.Acceleration)
	}
	if len(s.o.Bridges) > 0 {
		args = append(args, "--bridges", strings.Join(s.o.Bridges, ","))
	}
	args = append(args, s.o.poolArgs()...)
	if s.o.Nodes > 1 {
		args = append(args, "--share", strconv.Itoa(s.o.Nodes))
	}
	return args
}

// How long a node's guests may take to shut down when the instance stops, and a
// little more for the agent itself.
const shutdownGrace = 40 * time.Second

// startAgent starts an agent. unjoined says how many identities its folder still
// lacks; tokens for them are made anew at each start, as each is good once.
func (s *supervisor) startAgent(life context.Context, c *client.Client, name string, args []string, unjoined func() int) {
	s.agents = append(s.agents, s.launch(life, spec{
		name: name, orphan: syscall.SIGTERM,
		signals: []stopStep{{syscall.SIGINT, shutdownGrace}, {syscall.SIGTERM, 10 * time.Second}},
		command: func(ctx context.Context) (*exec.Cmd, func(), error) {
			// the server may have moved since the node last heard of it
			args := append([]string{"agent", "--server", strings.Join(s.o.advertised(s.listen), ",")}, args...)
			if n := unjoined(); n > 0 {
				file := s.o.Paths.joinFile(name)
				if err := mint(ctx, c, file, n); err != nil {
					return nil, nil, err
				}
				args = append(args, "--join-file", file)
			}
			return s.self(name, args...)
		},
	}))
}

// mint makes join tokens and lays them into a file that their reader removes.
func mint(ctx context.Context, c *client.Client, file string, n int) error {
	var b strings.Builder
	for range n {
		t, err := c.Nodes.Token(ctx)
		if err != nil {
			return errs.New(errs.CodeOf(err), "a token for a node cannot be made").Because(err)
		}
		b.WriteString(t.Token + "\n")
	}
	if err := durable.Replace(file, []byte(b.String()), false); err != nil {
		return hostError(err, "the file with the node's token cannot be written")
	}
	return nil
}
