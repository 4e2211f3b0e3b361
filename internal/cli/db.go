package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/internal/cli/local"
	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/engine/pglocal"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

const dbLong = `Work on the cluster's database: the one that NOVACRON_DATABASE_OWNER or
NOVACRON_DATABASE names, or the config file, else the private one of this
machine's instance, while it runs.`

func newDB(a *app) *cobra.Command {
	cmd := group(a, "db", "The cluster's database", newDBBackup(a), newDBRestore(a), newDBPsql(a))
	cmd.Long = dbLong
	return cmd
}

func newDBPsql(a *app) *cobra.Command {
	cmd := leaf("psql [-- ARGUMENT...]", "Open PostgreSQL's own shell on the database", cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
		db, err := a.database(cmd.Context())
		if err != nil {
			return err
		}
		tool, err := db.tool("psql")
		if err != nil {
			return err
		}
		env, done, err := db.environment()
		if err != nil {
			return err
		}
		defer done()
		run := exec.CommandContext(cmd.Context(), tool, args...)
		run.Env, run.Stdin, run.Stdout, run.Stderr = env, a.in, a.out, a.err
		return psqlEnd(run.Run())
	})
	cmd.Long = `Open psql on the database, as the role that owns it. What you write there is not
checked, not audited, and seen by no reconciler: for looking, mostly.`
	cmd.Example = `  novacron db psql
  novacron db psql -- -c 'SELECT count(*) FROM vms'`
	return cmd
}

// psqlEnd words the end of psql, whose own messages were seen.
func psqlEnd(err error) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return errs.New(errs.HostFailure, "psql ended with exit code %d", exit.ExitCode())
	}
	return err
}

func newDBBackup(a *app) *cobra.Command {
	var key string
	cmd := leaf("backup FILE", "Write the database into a file", names("FILE"), func(cmd *cobra.Command, args []string) error {
		db, err := a.database(cmd.Context())
		if err != nil {
			return err
		}
		size, err := db.backup(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s holds the database, %s\n", args[0], unit.FormatBytes(size))
		if key != "" {
			return a.copyKey(key)
		}
		fmt.Fprintln(a.err, "It is of use only with the servers' key file (kek in a server's data folder, --with-key). Keep the two apart: who has both has the cluster.")
		return nil
	})
	cmd.Long = `Write the database into a file, of one moment, while everything runs. 'novacron db
restore' puts it back.

The cluster's secrets in it are sealed under a key that is not in it: the file kek
in a server's data folder. Images and the disks of virtual machines are files of
their own and not in it either.`
	cmd.Example = `  novacron db backup /backup/novacron-$(date +%F).dump --with-key /elsewhere/novacron.kek`
	cmd.Flags().StringVar(&key, "with-key", "", "copy this machine's key file to this `file`, too")
	return cmd
}

// copyKey copies the instance's key-encryption key.
func (a *app) copyKey(to string) error {
	p, err := a.paths("")
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(p.Key())
	if err != nil {
		return errs.New(errs.HostFailure, "the key file %s cannot be read", p.Key()).Because(err)
	}
	if err := durable.Replace(to, raw, true); err != nil {
		return errs.New(errs.HostFailure, "the key file cannot be copied to %s", to).Because(err)
	}
	fmt.Fprintf(a.out, "%s holds the key\n", to)
	return nil
}

// database is a database to work on with PostgreSQL's programs.
type database struct {
	url  *url.URL
	bins string
}

// database finds the one that is meant.
func (a *app) database(ctx context.Context) (database, error) {
	bin, err := pglocal.Find(ctx, "", 0)
	if err != nil {
		return database{}, err
	}
	raw, err := a.databaseURL()
	if err != nil {
		return database{}, err
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return database{}, errs.New(errs.InvalidField, "the database's URL is not understood: it begins with postgres://")
	}
	return database{u, bin.Dir}, nil
}

func (a *app) databaseURL() (string, error) {
	for _, name := range []string{local.DatabaseOwnerEnv, local.DatabaseEnv} {
		if v := a.env(name); v != "" {
			return v, nil
		}
	}
	_, values, err := a.readConfig()
	if err != nil {
		return "", err
	}
	for _, section := range []string{"up", "server"} {
		for _, name := range []string{"database-owner", "database"} {
			if v := values[section][name]; len(v) > 0 {
				return v[0], nil
			}
		}
	}
	p, err := a.paths("")
	if err != nil {
		return "", err
	}
	if _, _, running, err := local.Running(p); err != nil || !running {
		return "", errs.New(errs.NodeUnreachable, "no database is named, and no instance runs on this machine: set %s, or start it with 'novacron up'", local.DatabaseOwnerEnv).Because(err)
	}
	return p.DatabaseURL(), nil
}

func (d database) tool(name string) (string, error) {
	for _, dir := range []string{d.bins, "/usr/bin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errs.New(errs.HostFailure, "%s is not installed: install postgresql-client", name)
}

// environment names the database to PostgreSQL's programs by a service file that
// its user alone can read: an argument would show the password to everyone.
func (d database) environment() (env []string, done func(), err error) {
	var b strings.Builder
	line := func(k, v string) {
		if v != "" {
			fmt.Fprintf(&b, "%s=%s\n", k, v)
		}
	}
	b.WriteString("[novacron]\n")
	line("host", d.url.Hostname())
	line("port", d.url.Port())
	line("dbname", strings.TrimPrefix(d.url.Path, "/"))
	line("user", d.url.User.Username())
	password, _ := d.url.User.Password()
	line("password", password)
	for k, v := range d.url.Query() {
		if !strings.HasPrefix(k, "pool_") && k != "role" { // our own driver's
			line(k, v[0])
		}
	}
	f, err := os.CreateTemp("", "novacron-pg-*") // mode 0600
	if err == nil {
		_, err = f.WriteString(b.String())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return nil, nil, errs.New(errs.HostFailure, "a temporary file cannot be written").Because(err)
	}
	env = append(os.Environ(), "PGSERVICEFILE="+f.Name(), "PGSERVICE=novacron")
	return env, func() { _ = os.Remove(f.Name()) }, nil
}

// backup dumps the database: the file is whole, read back, or not there.
func (d database) backup(ctx context.Context, to string) (int64, error) {
	dump, err := d.tool("pg_dump")
	if err != nil {
		return 0, err
	}
	list, err := d.tool("pg_restore")
	if err != nil {
		return 0, err
	}
	env, done, err := d.environment()
	if err != nil {
		return 0, err
	}
	defer done()
	part := to + ".part"
	defer func() { _ = os.Remove(part) }()
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, errs.New(errs.HostFailure, "%s cannot be written", to).Because(err)
	}
	run := exec.CommandContext(ctx, dump, "--format=custom")
	run.Env, run.Stdout = env, f
	if err := runTool(run, "pg_dump"); err != nil {
		return 0, errors.Join(err, f.Close())
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, errs.New(errs.NoSpace, "%s cannot be written; is the disk full?", to).Because(err)
	}
	if err := runTool(exec.CommandContext(ctx, list, "--list", part), "pg_restore --list"); err != nil {
		return 0, err
	}
	if err := os.Rename(part, to); err != nil {
		return 0, errs.New(errs.HostFailure, "%s cannot be put into its place", to).Because(err)
	}
	return info.Size(), nil
}

// runTool runs a program and keeps what it complained of.
func runTool(run *exec.Cmd, name string) error {
	var words strings.Builder
	run.Stderr = &words
	run.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := run.Run(); err != nil {
		return errs.New(errs.HostFailure, "%s failed", name).Because(fmt.Errorf("%w: %s", err, strings.TrimSpace(words.String())))
	}
	return nil
}
