package pglocal

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// MinMajor is the oldest PostgreSQL that works.
const MinMajor = 15

// BinEnv names the directory of the PostgreSQL binaries.
const BinEnv = "NOVACRON_PG_BIN"

// Binaries is an installed PostgreSQL server.
type Binaries struct {
	Dir   string
	Major int
}

// finder holds where to look; tests replace the parts.
type finder struct {
	env      string
	pgConfig func(ctx context.Context) string
	glob     string
}

func systemFinder() finder {
	return finder{
		env: os.Getenv(BinEnv),
		pgConfig: func(ctx context.Context) string {
			out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output()
			if err != nil {
				return ""
			}
			return strings.TrimSpace(string(out))
		},
		glob: "/usr/lib/postgresql/*/bin",
	}
}

// Find looks for PostgreSQL: in dir if it is given, else in $NOVACRON_PG_BIN,
// else what pg_config says, else the newest under /usr/lib/postgresql. want, if not 0,
// is the major version that existing data needs: it wins over newer ones, but
// not over dir or the environment.
func Find(ctx context.Context, dir string, want int) (Binaries, error) {
	return systemFinder().find(ctx, dir, want)
}

func (f finder) find(ctx context.Context, dir string, want int) (Binaries, error) {
	if dir == "" {
		dir = f.env
	}
	if dir != "" {
		b, err := inspect(ctx, dir)
		if err != nil {
			return Binaries{}, err
		}
		return b, tooOld(b)
	}
	found := f.installed(ctx)
	for _, b := range found {
		if b.Major == want {
			return b, nil
		}
	}
	if len(found) == 0 {
		return Binaries{}, errs.New(errs.HostFailure,
			"PostgreSQL is not installed: install version %d or newer (Debian: apt install postgresql; "+
				"Fedora: dnf install postgresql-server), or name its bin directory in %s",
			MinMajor, BinEnv)
	}
	return found[0], tooOld(found[0])
}

// installed lists what is found, best first: pg_config's, then by version.
func (f finder) installed(ctx context.Context) []Binaries {
	var found []Binaries
	if dir := f.pgConfig(ctx); dir != "" {
		if b, err := inspect(ctx, dir); err == nil {
			found = append(found, b)
		}
	}
	dirs, _ := filepath.Glob(f.glob)
	var rest []Binaries
	for _, dir := range dirs {
		if b, err := inspect(ctx, dir); err == nil {
			rest = append(rest, b)
		}
	}
	sort.Slice(rest, func(i, j int) bool { return rest[i].Major > rest[j].Major })
	found = append(found, rest...)
	sort.SliceStable(found, func(i, j int) bool { return found[i].Major >= MinMajor && found[j].Major < MinMajor })
	return found
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

func inspect(ctx context.Context, dir string) (Binaries, error) {
	for _, tool := range []string{"postgres", "initdb"} {
		if _, err := os.Stat(filepath.Join(dir, tool)); err != nil {
			return Binaries{}, errs.New(errs.HostFailure,
				"%s holds no %s: it must be the bin directory of a PostgreSQL server "+
					"(Debian: package postgresql, then /usr/lib/postgresql/<version>/bin)", dir, tool).Because(err)
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output() //nolint:gosec // the operator's choice
	if err != nil {
		return Binaries{}, errs.New(errs.HostFailure, "%s/postgres does not run", dir).Because(err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return Binaries{}, errs.New(errs.HostFailure, "%s/postgres does not tell its version", dir).
			Because(fmt.Errorf("it printed %q", errs.Clip(string(out))))
	}
	major, _ := strconv.Atoi(string(m[1]))
	return Binaries{Dir: dir, Major: major}, nil
}

func tooOld(b Binaries) error {
	if b.Major >= MinMajor {
		return nil
	}
	return errs.New(errs.HostFailure, "PostgreSQL %d in %s is too old: version %d or newer is needed (Debian: apt install postgresql-%d)",
		b.Major, b.Dir, MinMajor, MinMajor)
}

// dataMajor reads which major version made the data; 0 if there is none yet.
func dataMajor(data string) (int, error) {
	raw, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if os.IsNotExist(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the version of %s: %w", data, err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0, errs.New(errs.HostFailure, "%s/PG_VERSION is damaged: it says %q", data, errs.Clip(string(raw)))
	}
	return n, nil
}

func mismatch(data string, has int, b Binaries) error {
	if has == 0 || has == b.Major {
		return nil
	}
	return errs.New(errs.HostFailure,
		"the data in %s was made by PostgreSQL %d and cannot be opened by version %d in %s: install PostgreSQL %d again "+
			"(Debian: apt install postgresql-%d), or upgrade the data with pg_upgrade or by dump and restore",
		data, has, b.Major, b.Dir, has, has)
}
