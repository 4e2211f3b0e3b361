package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// A certificate is put into the store that is there, taken out again, and not left
// behind by an update that failed.
func TestTrustStore(t *testing.T) {
	dir := t.TempDir()
	good := trustStore{dir: dir, update: []string{"true"}}
	found, err := findTrustStore([]trustStore{
		{filepath.Join(dir, "absent"), []string{"true"}}, {dir, []string{"no-such-program"}}, good,
	})
	if err != nil || found.dir != dir || found.update[0] != "true" {
		t.Fatalf("%+v %v", found, err)
	}
	if _, err := findTrustStore(nil); !errs.Is(err, errs.HostFailure) {
		t.Errorf("no store: %v", err)
	}
	path := filepath.Join(dir, "x.crt")
	if err := good.add(t.Context(), "x.crt", "PEM"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "PEM" {
		t.Errorf("%q %v", b, err)
	}
	for range 2 {
		if err := good.remove(t.Context(), "x.crt"); err != nil {
			t.Error(err)
		}
	}
	broken := trustStore{dir: dir, update: []string{"false"}}
	if err := broken.add(t.Context(), "x.crt", "PEM"); !errs.Is(err, errs.HostFailure) {
		t.Errorf("an update that fails: %v", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the certificate is left: %v", err)
	}
}
