package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
)

func TestReadPools(t *testing.T) {
	got, err := ReadPools([]string{"shared=/mnt/a/", "other=/mnt/b=c"})
	if err != nil || len(got) != 2 || got["shared"] != "/mnt/a" || got["other"] != "/mnt/b=c" {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range [][]string{{"shared"}, {"=/mnt"}, {"../x=/mnt"}, {"shared=mnt"}, {"shared="}, {"a=/x", "a=/y"}, {"a=/x\x00"}} {
		if got, err := ReadPools(bad); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}

// A pool is not in the node's own folder, nor around it, by whatever way it is named.
func TestPoolApart(t *testing.T) {
	base := t.TempDir()
	data := filepath.Join(base, "data")
	if err := os.MkdirAll(filepath.Join(data, "volumes"), 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(base, "link")
	if err := os.Symlink(data, link); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{data, filepath.Join(data, "volumes"), filepath.Join(data, "not", "there"), base, "/", link, filepath.Join(link, "volumes")} {
		if err := apart("shared", bad, data); !errs.Is(err, errs.InvalidField) || !strings.Contains(err.Error(), "shared") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, good := range []string{filepath.Join(base, "database"), filepath.Join(base, "other"), "/mnt/not-there"} {
		if err := apart("shared", good, data); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}
