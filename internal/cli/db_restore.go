package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/novacron/novacron/internal/cli/local"
	"github.com/novacron/novacron/internal/engine/pglocal"
	"github.com/novacron/novacron/internal/server"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/store/migrations"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

const restoreLong = `Put the database back from a file that 'novacron db backup' wrote.

No server may run meanwhile: stop the instance ('novacron down', or 'systemctl stop
novacron', which leaves guests running), or all servers of a database of your own.
The file is restored into a database of its own, looked into, migrated to this
program's schema, and takes the place of the one that is there, which is kept under
another name. A failure leaves everything as it was.

Hosts have gone on since the backup was made. So the first server that starts holds
the whole cluster: nothing is started, stopped or deleted, until an operator has
seen what differs ('novacron recovery show') and confirmed it ('novacron recovery
confirm').`

func newDBRestore(a *app) *cobra.Command {
	r := &restore{app: a}
	cmd := leaf("restore FILE", "Put the database back from a backup", names("FILE"), func(cmd *cobra.Command, args []string) error {
		r.file, r.cmd = args[0], cmd
		return r.run(cmd.Context())
	})
	cmd.Long = restoreLong
	cmd.Example = `  novacron down
  novacron db restore /backup/novacron-2026-11-20.dump
  novacron up --detach
  novacron recovery show`
	f := cmd.Flags()
	f.StringVar(&r.url, "database", "", "`URL` of a database of your own, of a role that may create databases; the private one of this machine's instance otherwise")
	f.StringVar(&r.key, "key", "", "the servers' key `file`, to prove that it fits; the instance's own otherwise")
	f.BoolVarP(&r.yes, "yes", "y", false, "do not ask")
	return cmd
}

// restore is a restore under way.
type restore struct {
	app  *app
	cmd  *cobra.Command
	file string
	url  string
	key  string
	yes  bool

	bins string
	// at gives the URL of a database, by name, of a role that may create and rename
	at func(database string) string
	// name of the database, owner its role; fresh is the one it is restored into,
	// aside what the one that is there is called afterwards
	name, owner, fresh, aside string
	backupOf                  time.Time
	before                    *store.Facts
	revoked                   map[id.ID]time.Time
}

func (r *restore) run(ctx context.Context) error {
	bin, err := pglocal.Find(ctx, "", 0)
	if err != nil {
		return err
	}
	r.bins = bin.Dir
	if err := r.inspect(ctx); err != nil {
		return err
	}
	p, err := r.app.paths("")
	if err != nil {
		return err
	}
	if r.url == "" {
		if r.key == "" {
			r.key = p.Key()
		}
		r.name, r.owner = pglocal.Database, pglocal.OwnerRole
		return local.WithDatabase(ctx, p, r.app.clock, func(admin func(string) string) error {
			r.at = admin
			return r.into(ctx)
		})
	}
	if err := r.ownDatabase(); err != nil {
		return err
	}
	return r.into(ctx)
}

// ownDatabase takes the operator's URL apart.
func (r *restore) ownDatabase() error {
	u, err := url.Parse(r.url)
	name := ""
	if err == nil {
		name = strings.TrimPrefix(u.Path, "/")
	}
	if err != nil || name == "" || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return errs.New(errs.InvalidField, "the database's URL is not understood: it is postgres://ROLE@HOST/DATABASE")
	}
	r.name, r.owner = name, u.User.Username()
	r.at = func(database string) string {
		v := *u
		v.Path = "/" + database
		return v.String()
	}
	return nil
}

// tables that every backup of ours has.
var tables = []string{" TABLE public cluster ", " TABLE public vms ", " TABLE public goose_db_version "}

// inspect reads the file's list of contents.
func (r *restore) inspect(ctx context.Context) error {
	tool, err := (database{bins: r.bins}).tool("pg_restore")
	if err != nil {
		return err
	}
	if _, err := os.Stat(r.file); err != nil {
		return errs.New(errs.NotFound, "there is no file %s that could be read", r.file).Because(err)
	}
	list := exec.CommandContext(ctx, tool, "--list", r.file)
	list.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	var words strings.Builder
	list.Stderr = &words
	out, err := list.Output()
	if err != nil {
		return errs.New(errs.InvalidField, "%s is no backup that this machine's pg_restore reads: %s", r.file, errs.Clip(strings.TrimSpace(words.String()))).Because(err)
	}
	for _, t := range tables {
		if !strings.Contains(string(out), t) {
			return errs.New(errs.InvalidField, "%s is a backup of another program's database: it has no%s", r.file, strings.TrimSuffix(t, " "))
		}
	}
	const made = "; Archive created at "
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, made); ok {
			r.backupOf, err = time.Parse("2006-01-02 15:04:05 MST", strings.TrimSpace(rest))
			if err == nil {
				return nil
			}
		}
	}
	return errs.New(errs.InvalidField, "%s does not say when it was made", r.file)
}

func (r *restore) into(ctx context.Context) error {
	conn, err := connectTo(ctx, r.at("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := r.lookAtPresent(ctx, conn); err != nil {
		return err
	}
	stamp := r.app.clock.Now().UTC().Format("20060102_150405")
	r.fresh, r.aside = r.name+"_restoring_"+stamp, r.name+"_before_"+stamp
	fmt.Fprintf(r.app.err, "restoring into a database of its own\n")
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+quoted(r.fresh)+" OWNER "+quoted(r.owner)+" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'"); err != nil {
		return errs.New(errs.HostFailure, "a database cannot be made: the role needs the right to (ALTER ROLE ... CREATEDB), or name an administrator's URL").Because(err)
	}
	facts, err := r.fill(ctx)
	if err == nil {
		err = r.agree(facts)
	}
	if err == nil {
		err = r.swap(ctx, conn)
	}
	if err != nil {
		if _, drop := conn.Exec(context.WithoutCancel(ctx), "DROP DATABASE IF EXISTS "+quoted(r.fresh)); drop != nil {
			err = errors.Join(err, drop)
		}
		return err
	}
	r.tell(facts)
	return nil
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

func connectTo(ctx context.Context, url string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, errs.New(errs.DBUnavailable, "the database cannot be reached").Because(err)
	}
	return conn, nil
}

// lookAtPresent refuses while somebody works on the database that is there, and
// reads what of it has to be known.
func (r *restore) lookAtPresent(ctx context.Context, conn *pgx.Conn) error {
	var there bool
	var sessions int
	err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1), (SELECT count(*) FROM pg_stat_activity WHERE datname = $1)`, r.name).Scan(&there, &sessions)
	if err != nil {
		return errs.New(errs.DBUnavailable, "PostgreSQL cannot be asked what it has").Because(err)
	}
	if sessions > 0 {
		return busyDatabase(r.name, sessions)
	}
	if !there {
		return nil
	}
	if err := conn.QueryRow(ctx, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = $1", r.name).Scan(&r.owner); err != nil {
		return errs.New(errs.DBUnavailable, "PostgreSQL cannot be asked whose the database is").Because(err)
	}
	present, err := connectTo(ctx, r.at(r.name))
	if err != nil {
		return err
	}
	defer func() { _ = present.Close(ctx) }()
	facts, err := store.ReadFacts(ctx, present)
	if err == nil {
		r.before = &facts
		r.revoked, err = store.ReadRevoked(ctx, present)
	}
	if err != nil && !errs.Is(err, errs.NotFound) {
		// damaged, perhaps: the reason for all this
		fmt.Fprintf(r.app.err, "the database that is there cannot be read, and is kept as it is: %s\n", publicError(err).Detail)
		r.before = nil
	}
	return nil
}

func busyDatabase(name string, sessions int) error {
	return errs.New(errs.Conflict, "%d sessions work on the database %s: stop every server first, and whatever else uses it", sessions, name)
}

// fill restores the file into the fresh database, and brings it to this program's
// schema, with the rights and the mark that it needs.
func (r *restore) fill(ctx context.Context) (store.Facts, error) {
	owner, err := url.Parse(r.at(r.fresh))
	if err != nil {
		return store.Facts{}, errs.New(errs.Internal, "a database's URL is damaged").Because(err)
	}
	db := database{owner, r.bins}
	tool, err := db.tool("pg_restore")
	if err != nil {
		return store.Facts{}, err
	}
	env, done, err := db.environment()
	if err != nil {
		return store.Facts{}, err
	}
	defer done()
	run := exec.CommandContext(ctx, tool, "--exit-on-error", "--single-transaction", "--no-owner", "--no-acl", "--role", r.owner, "--dbname", "service=novacron", r.file)
	run.Env = env
	if err := runTool(run, "pg_restore"); err != nil {
		return store.Facts{}, err
	}
	q := owner.Query()
	q.Set("role", r.owner) // what is made is the owner's, whoever makes it
	owner.RawQuery = q.Encode()
	return r.prepare(ctx, owner.String())
}

func (r *restore) prepare(ctx context.Context, ownerURL string) (store.Facts, error) {
	// refuses one that is newer than this program
	if err := migrations.Up(ctx, ownerURL); err != nil {
		return store.Facts{}, err
	}
	conn, err := connectTo(ctx, ownerURL)
	if err != nil {
		return store.Facts{}, err
	}
	defer func() { _ = conn.Close(ctx) }()
	facts, err := store.ReadFacts(ctx, conn)
	if err != nil {
		return facts, err
	}
	if err := r.fits(facts); err != nil {
		return facts, err
	}
	if err := migrations.Grant(ctx, conn); err != nil {
		return facts, err
	}
	return facts, store.MarkRestored(ctx, conn, store.Restored{
		BackupOf: r.backupOf, Incarnation: id.New(), Before: r.before, Revoked: r.revoked, By: operator(), File: r.file,
	})
}

// fits refuses another cluster's backup, and one that the servers could not open.
func (r *restore) fits(f store.Facts) error {
	if r.before != nil && r.before.Cluster != f.Cluster {
		return errs.New(errs.Conflict, "the backup is of cluster %s, and the database that is there of %s: rename that one first, if it is really to go", f.Cluster, r.before.Cluster)
	}
	if r.key == "" {
		return nil
	}
	if err := server.CheckKey(r.key, f.CAKeySealed); err != nil {
		return errs.New(errs.Conflict, "the key file %s is not that of the backup's cluster: put the one that was saved with it there first", r.key).Because(err)
	}
	return nil
}

// operator is who does this, as the machine knows them.
func operator() string {
	if u, err := user.Current(); err == nil {
		return "user " + u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// agree tells what is about to happen, and asks.
func (r *restore) agree(f store.Facts) error {
	a := r.app
	fmt.Fprintf(a.err, "backup:  of %s, cluster %s, %d virtual machines, last event %s\n", r.backupOf.Format(time.RFC3339), f.Cluster, f.VMs, eventTime(f))
	if r.before != nil {
		fmt.Fprintf(a.err, "present: %d virtual machines, last event %s; kept as database %s\n", r.before.VMs, eventTime(*r.before), r.aside)
	}
	if r.yes {
		return nil
	}
	if !isTerminal(a.in) || !isTerminal(a.err) {
		return usage(r.cmd, "this replaces the cluster's database: say --yes to do it")
	}
	fmt.Fprintf(a.err, "What happened since the backup is not in it; hosts keep what they run. Type restore to go on: ")
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "restore" {
		return errs.New(errs.Cancelled, "nothing was changed")
	}
	return nil
}

func eventTime(f store.Facts) string {
	if f.Newest.IsZero() {
		return "none"
	}
	return f.Newest.UTC().Format(time.RFC3339)
}

// swap puts the fresh database into its place. PostgreSQL refuses while anybody
// has a session with the one that is there.
func (r *restore) swap(ctx context.Context, conn *pgx.Conn) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var there bool
		if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", r.name).Scan(&there); err != nil {
			return err
		}
		if there {
			if _, err := tx.Exec(ctx, "ALTER DATABASE "+quoted(r.name)+" RENAME TO "+quoted(r.aside)); err != nil {
				return err
			}
		} else {
			r.aside = ""
		}
		_, err := tx.Exec(ctx, "ALTER DATABASE "+quoted(r.fresh)+" RENAME TO "+quoted(r.name))
		return err
	})
	if err != nil {
		return errs.New(errs.Conflict, "the restored database cannot take its place: does a server run on %s? Nothing was changed", r.name).Because(err)
	}
	return nil
}

func (r *restore) tell(f store.Facts) {
	out := r.app.out
	fmt.Fprintf(out, "database %s: restored from the backup of %s, with %d virtual machines\n", r.name, r.backupOf.Format(time.RFC3339), f.VMs)
	if r.aside != "" {
		fmt.Fprintf(out, "what was there is kept as database %s: drop it when it is not needed any more\n", r.aside)
	}
	fmt.Fprintln(out, "Start the servers. The cluster is held until you have seen what differs: novacron recovery show")
}
