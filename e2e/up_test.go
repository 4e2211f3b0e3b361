package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// attempt runs 'up' in a folder where it cannot work, and gives what it said.
func attempt(t *testing.T, data string, env []string, as *syscall.Credential, args ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"up", "--detach", "--data-dir", data, "--sim", "1"}, args...)...)
	cmd.Env = append(append(os.Environ(), "HOME="+data), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	cmd.Dir = "/"
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// Everything that can be wrong with the machine is said clearly, with an exit
// code, and leaves no process behind.
func TestUpSaysWhatIsWrong(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, c := range map[string]struct {
		prepare func(t *testing.T, data string)
		env     []string
		as      *syscall.Credential
		args    []string
		code    int
		says    []string
	}{
		"PortTaken":       {args: []string{"--listen", l.Addr().String()}, code: 4, says: []string{l.Addr().String()}},
		"NoPostgreSQL":    {env: []string{"NOVACRON_PG_BIN=/nonexistent"}, args: []string{"--listen", "127.0.0.1:0"}, code: 8, says: []string{"PostgreSQL"}},
		"NoPasswdEntry":   {prepare: strangersDir, as: &syscall.Credential{Uid: stranger, Gid: stranger}, args: []string{"--listen", "127.0.0.1:0"}, code: 8, says: []string{"54321", "passwd"}},
		"DiskFull":        {prepare: smallDisk, args: []string{"--listen", "127.0.0.1:0"}, code: 8, says: []string{"MiB free"}},
		"NotAnAddress":    {args: []string{"--listen", "nowhere"}, code: 2, says: []string{"nowhere"}},
		"SomeoneElsesDir": {prepare: func(t *testing.T, data string) { write(t, filepath.Join(data, "precious.txt"), "x") }, args: []string{"--listen", "127.0.0.1:0"}, code: 4, says: []string{"precious"}},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := os.MkdirTemp("", "nce2e-bad") //nolint:usetesting // a test's own folder is too long for sockets, and closed to other users
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(data, 0o777); err != nil {
				t.Fatal(err)
			}
			i := &instance{t: t, data: data}
			t.Cleanup(func() {
				_, _ = i.run("down")
				_ = os.RemoveAll(data)
			})
			if c.prepare != nil {
				c.prepare(t, data)
			}
			code, out := attempt(t, data, c.env, c.as, c.args...)
			if code == 0 {
				t.Fatalf("up succeeded: %s", out)
			}
			t.Logf("exit %d: %s", code, out)
			for _, s := range c.says {
				if !strings.Contains(out, s) {
					t.Errorf("it does not say %q", s)
				}
			}
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if left := i.processes(); len(left) > 0 {
				t.Errorf("processes left: %v", left)
			}
		})
	}
}

// The API may move to another port: the nodes find it.
func TestServerMoves(t *testing.T) {
	i := up(t, "--sim", "2")
	before := i.state().Summary.Address
	i.must("down")
	free := freeAddress(t)
	i.args = []string{"up", "--detach", "--sim", "2", "--listen", free}
	i.start()
	if now := i.state().Summary.Address; now != free || now == before {
		t.Fatalf("it listens on %s, was %s, want %s", now, before, free)
	}
	i.eventually("the nodes are back", func() (bool, string) {
		nodes := get[api.List[api.Node]](i, "node", "list")
		ready := 0
		for _, n := range nodes.Items {
			if n.Status.State == "ready" {
				ready++
			}
		}
		return ready == 2, fmt.Sprintf("%d of 2 are ready", ready)
	})
}

// stranger is a user without a passwd entry.
const stranger = 54321

func strangersDir(t *testing.T, data string) {
	t.Helper()
	if err := os.Chown(data, stranger, stranger); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// smallDisk mounts a file system of 8 MiB: too little for PostgreSQL.
func smallDisk(t *testing.T, data string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size=8m,mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(data, syscall.MNT_DETACH) })
}

// A second 'up' says that one runs; 'down' in the middle of a hundred creations
// loses none that was acknowledged.
func TestStopUnderLoadLosesNothing(t *testing.T) {
	const vms = 100
	i := up(t, "--sim", "5")
	if out := i.must(i.args...); !strings.Contains(out, "runs already") && !strings.Contains(out, "already runs") && !strings.Contains(out, "is running") {
		t.Errorf("the second up says %s", out)
	}
	i.importTiny()
	c, err := client.New(client.Config{Socket: i.state().Summary.Socket})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	quarter := make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := w; n < vms; n += 4 {
				_, err := c.VMs.Create(ctx, api.VMCreate{Name: name(n), CPUs: 1, MemoryBytes: 64 << 20, Image: "tiny", Start: true})
				mu.Lock()
				if err == nil {
					acknowledged[name(n)] = true
				}
				if len(acknowledged) == vms/4 {
					once.Do(func() { close(quarter) })
				}
				mu.Unlock()
			}
		})
	}
	<-quarter
	i.must("down")
	cancel()
	wg.Wait()
	t.Logf("%d of %d were acknowledged before the end", len(acknowledged), vms)
	i.start()
	for n := range acknowledged {
		i.appears(n, "running")
	}
	i.eventually("no open job", func() (bool, string) {
		jobs := get[api.List[api.Job]](i, "job", "list", "--limit", "1000")
		for _, j := range jobs.Items {
			if !j.Ended() {
				return false, fmt.Sprintf("%+v", j)
			}
		}
		return true, ""
	})
}

// Two servers on one database: one is frozen in the middle of jobs, the other
// finishes them, and the thawed one does no harm.
func TestSecondServerTakesOver(t *testing.T) {
	const vms = 20
	i := up(t, "--sim", "3")
	i.importTiny()
	second := i.secondServer()
	// a VM made by way of the second server shows that agents have a session with it
	warm, err := second.VMs.Create(t.Context(), api.VMCreate{Name: "warm", CPUs: 1, MemoryBytes: 64 << 20, Image: "tiny", Start: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.WaitChange(t.Context(), warm, nil); err != nil {
		t.Fatal(err)
	}
	i.eventually("every node has a session with the second server", func() (bool, string) {
		nodes, err := client.Collect(second.Nodes.All(t.Context(), client.ListOptions{}))
		if err != nil {
			return false, err.Error()
		}
		out, err := os.ReadFile(filepath.Join(i.data, "logs", "sim.log"))
		got := strings.Count(string(out), "joined a server")
		return err == nil && got >= 2*len(nodes), fmt.Sprintf("%d sessions of %d nodes", got, len(nodes))
	})
	for n := range vms {
		if _, err := second.VMs.Create(t.Context(), api.VMCreate{Name: name(n), CPUs: 1, MemoryBytes: 64 << 20, Image: "tiny", Start: true}); err != nil {
			t.Fatal(err)
		}
		if n == vms/2 {
			first := i.state().Children["server"].PID
			if err := syscall.Kill(first, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = syscall.Kill(first, syscall.SIGCONT) }()
		}
	}
	rest := func() (bool, string) {
		list, err := client.Collect(second.VMs.All(t.Context(), client.ListOptions{}))
		for _, v := range list {
			if v.Status.State != "running" || v.Status.Job != "" {
				return false, fmt.Sprintf("%s is %s (%s)", v.Name, v.Status.State, v.Status.Reason)
			}
		}
		return err == nil && len(list) == vms+1, fmt.Sprint(len(list), err)
	}
	began := clock.System{}.Boot()
	i.eventually("all run, by the second server's work", rest)
	t.Logf("all ran %.1f s after the last request", (clock.System{}.Boot() - began).Seconds())
	if err := syscall.Kill(i.state().Children["server"].PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	i.eventually("the thawed server serves", func() (bool, string) {
		out, err := i.run("vm", "list")
		return err == nil, out
	})
	if ok, why := rest(); !ok {
		t.Errorf("after the thaw: %s", why)
	}
	jobs, err := client.Collect(second.Jobs.All(t.Context(), client.ListOptions{}))
	if err != nil || len(jobs) != vms+1 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
	for _, j := range jobs {
		if j.State != "succeeded" {
			t.Errorf("job %s of %s is %s: %+v", j.Type, j.Target.Name, j.State, j.Error)
		}
	}
}

// secondServer runs another server on the instance's database, until the test
// ends, and gives a client of it.
func (i *instance) secondServer() *client.Client {
	i.t.Helper()
	socket := i.furtherServer(freeAddress(i.t)).socket
	c, err := client.New(client.Config{Socket: socket})
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(c.Close)
	i.eventually("the second server serves", func() (bool, string) {
		_, err := c.System(i.t.Context())
		return err == nil, fmt.Sprint(err)
	})
	return c
}
