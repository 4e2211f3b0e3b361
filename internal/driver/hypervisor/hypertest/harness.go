package hypertest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Kind is how a test guest behaves.
type Kind int

// The kinds. Every guest prints "guest ready" on its console once it executes,
// and echoes what is typed there.
const (
	// Polite powers off when asked.
	Polite Kind = iota
	// Deaf ignores the power button.
	Deaf
	// Answering is a guest whose agent answers, soon after it is ready, and that has a file
	// system to freeze. Of a driver without GuestAgent, it is Polite.
	Answering
)

// Ready is what every test guest prints.
const Ready = "guest ready"

// Harness is one host with one open driver, made for one test. It cleans up
// after itself by t.Cleanup.
type Harness interface {
	// Driver is the driver now open.
	Driver() contract.Driver
	// Machine makes a machine of a fresh VM at epoch 1 that this driver can boot.
	Machine(t *testing.T, k Kind) contract.Machine
	// Twin makes, on this host, a machine of another one as it can be received here: under
	// the next epoch, with empty disks of the same sizes.
	Twin(t *testing.T, m contract.Machine) contract.Machine
	// Away closes the driver, calls while, and opens another one on the same host,
	// as an agent that restarts. The caller calls Adopt.
	Away(t *testing.T, while func())
	// CrashGuest ends the VM's process from outside; it need not wait for the end.
	CrashGuest(t *testing.T, vm id.ID)
	// PowerOffGuest has the guest power itself off; it need not wait for the end.
	PowerOffGuest(t *testing.T, vm id.ID)
	// FreePort gives a TCP port of 127.0.0.1 that nobody uses.
	FreePort(t *testing.T) int
	// Leftovers lists everything the host holds, read from the host itself; empty
	// means clean.
	Leftovers() []string
}

// patience bounds every wait of the suite; a slow machine needs a fraction of it.
const patience = 90 * time.Second

// Context gives a context that ends with the test or when patience does.
func Context(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// ShortDir gives a folder for one test whose path is short enough for sockets and
// that guests' users may pass through; a test's own folder is neither.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nova") //nolint:usetesting // its name is too long for sockets, and it is closed to guests' users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // guests' own users go through it to their files; they cannot list it
		t.Fatal(err)
	}
	return dir
}

// Recorder is a sink that remembers.
type Recorder struct {
	mu      sync.Mutex
	seen    []contract.Status
	changed chan struct{}
}

// NewRecorder makes an empty recorder.
func NewRecorder() *Recorder { return &Recorder{changed: make(chan struct{})} }

// Sink is the contract.Sink to construct a driver with.
func (r *Recorder) Sink(s contract.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, s)
	close(r.changed)
	r.changed = make(chan struct{})
}

// Of gives what was seen of a VM, oldest first.
func (r *Recorder) Of(vm id.ID) []contract.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []contract.Status
	for _, s := range r.seen {
		if s.VM == vm {
			out = append(out, s)
		}
	}
	return out
}

// Await waits until a status of the VM was seen that satisfies want, looking from
// the oldest, and gives it.
func (r *Recorder) Await(t *testing.T, vm id.ID, what string, want func(contract.Status) bool) contract.Status {
	t.Helper()
	ctx := Context(t)
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		for _, s := range r.Of(vm) {
			if want(s) {
				return s
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("waited for %s of VM %s; seen: %+v", what, vm, r.Of(vm))
		}
	}
}

// GuestImage gives the small Linux guest that scripts/guest-image makes: it
// prints "NovaCron test guest ready" on ttyS0, has a root shell there and reacts
// to the power button.
func GuestImage(t testing.TB) (kernel, initrd string) {
	t.Helper()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for !exists(filepath.Join(root, "go.mod")) {
		if root = filepath.Dir(root); root == "/" {
			t.Fatal("the test does not run inside the repository")
		}
	}
	kernel = filepath.Join(root, ".cache", "guest", "vmlinuz")
	initrd = filepath.Join(root, ".cache", "guest", "initrd.gz")
	if !exists(kernel) || !exists(initrd) {
		t.Fatal("the test guest is missing: run scripts/guest-image")
	}
	return kernel, initrd
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
