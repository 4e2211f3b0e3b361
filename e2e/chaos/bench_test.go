package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/tap"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// nodes of a bench.
const nodes = 3

// swapPatience of the bench's agents: those of the product, by one factor.
const swapPatience = 3 * time.Second

// bench is a cluster that can be broken, with one guest.
type bench struct {
	t       testing.TB
	dir     string
	net     *network
	gate    *gate
	db      *pgxpool.Pool
	servers []*server
	nodes   []*node
	client  *client.Client
	witness *listener
	mistake mistake
}

// process is one of the bench's own: a server or an agent.
type process struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
}

// launch runs the test's binary as something else.
func launch(log, face string, env []string, args ...string) (*process, error) {
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(exe, append([]string{face}, args...)...), log: f, done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait()
		_ = f.Close()
	}()
	return p, nil
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// end sends a signal and waits for the end.
func (p *process) end(s syscall.Signal) {
	p.signal(s)
	p.signal(syscall.SIGCONT)
	<-p.done
}

// server is one, and its way to the database.
type server struct {
	b       *bench
	name    string
	address string
	url     string
	relay   *relay
	*process
}

func (s *server) start() error {
	args := []string{"--data-dir", filepath.Join(s.b.dir, "server"), "--listen", s.address, "--socket-path", s.socket(), "--announce=false"}
	p, err := launch(filepath.Join(s.b.dir, s.name+".log"), "server", []string{"NOVACRON_DATABASE=" + s.url}, args...)
	s.process = p
	return err
}

func (s *server) socket() string { return filepath.Join(s.b.dir, s.name+".sock") }

// node is one, with what its host has.
type node struct {
	b *bench
	n int
	agentConfig
	boots int
	*process
}

func (n *node) start() error {
	return n.b.net.within(n.n, func() error {
		c, err := json.Marshal(n.agentConfig)
		if err != nil {
			return err
		}
		n.process, err = launch(filepath.Join(n.b.dir, n.Name+".log"), agentFace, []string{agentEnv + "=" + string(c)})
		n.Join = ""
		return err
	})
}

// reboot starts the node's agent as after a start of its host.
func (n *node) reboot() error {
	n.boots++
	n.Boot = fmt.Sprintf("%s-boot-%d", n.Name, n.boots)
	return n.start()
}

func (n *node) home() string { return filepath.Join(n.b.dir, n.Name) }

// openBench makes a cluster and its guest, which counts. Programs are the nodes' QEMUs, in
// their order; "" and none are the installed one.
func openBench(t testing.TB, m mistake, programs ...string) *bench {
	t.Helper()
	if err := tap.Usable(); err != nil {
		if os.Getenv(roundsEnv) != "" || os.Getenv(caseEnv) != "" {
			t.Fatal("this was asked for, and the host has not got what it takes: ", err)
		}
		t.Skip("namespaces, bridges and loop devices take root: ", err)
	}
	b := &bench{t: t, dir: hypertest.ShortDir(t), net: openNetwork(t, nodes), mistake: m}
	t.Cleanup(b.dumpLogs)
	b.gate = openGate(t, filepath.Join(b.dir, "gate"))
	b.witness = listen(t, b.net.listener())
	b.openServers()
	b.openNodes(programs)
	b.openGuest()
	return b
}

func (b *bench) openServers() {
	t := b.t
	t.Helper()
	db := storetest.New(t)
	b.db = db.Owner
	if err := os.Mkdir(filepath.Join(b.dir, "server"), 0o700); err != nil {
		t.Fatal(err)
	}
	for k := range 2 {
		s := &server{b: b, name: fmt.Sprintf("server-%d", k+1), address: b.net.servers() + ":" + strconv.Itoa(8443+k)}
		s.relay, s.url = openRelay(t, filepath.Join(b.dir, fmt.Sprintf("db%d", k+1)), db.AppURL, func(p point) { b.gate.comeBy(s.name, p) })
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.end(syscall.SIGKILL) })
		b.servers = append(b.servers, s)
	}
	b.client = b.administrator()
}

// administrator gives a client that knows both servers.
func (b *bench) administrator() *client.Client {
	b.t.Helper()
	ctx := b.t.Context()
	local, err := client.New(client.Config{Socket: b.servers[0].socket()})
	if err != nil {
		b.t.Fatal(err)
	}
	defer local.Close()
	b.until("the first server", time.Minute, func() error { _, err := local.System(ctx); return err })
	ca, err := local.CA(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	token, err := local.Tokens.Create(ctx, api.TokenCreate{Name: "chaos", Role: "administrator"})
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := client.New(client.Config{Addresses: []string{b.servers[0].address, b.servers[1].address}, CA: []byte(ca.CertificatePEM), Token: token.Token})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Close)
	return c
}

// diskOfNode is how large a node's file system is.
const diskOfNode = 600 << 20

func (b *bench) openNodes(programs []string) {
	t := b.t
	t.Helper()
	for k := range nodes {
		n := &node{b: b, n: k}
		n.agentConfig = agentConfig{
			Name: fmt.Sprintf("n%d", k+1), Bridges: []string{guestBridge}, SwapPatience: swapPatience, Gate: b.gate.path, Mistake: b.mistake,
			RAMDir: "/dev/shm/" + filepath.Base(b.dir) + "-" + strconv.Itoa(k),
		}
		if k < len(programs) {
			n.QEMU = programs[k]
		}
		n.DataDir, n.RunDir = filepath.Join(n.home(), "data"), filepath.Join(n.home(), "run")
		n.openDisk()
		token, err := b.client.Nodes.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n.Join = token.Token
		if err := n.reboot(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.remove)
		b.nodes = append(b.nodes, n)
	}
}

// openDisk gives the node a file system of its own.
func (n *node) openDisk() {
	t := n.b.t
	t.Helper()
	file := n.home() + ".img"
	if err := os.Mkdir(n.home(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, diskOfNode); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=0", file)
	run(t, "mount", "-o", "loop", file, n.home())
	t.Cleanup(func() { _ = exec.Command("umount", "-l", n.home()).Run() })
	if err := os.Chmod(n.home(), 0o755); err != nil {
		t.Fatal(err)
	}
}

// powerOff ends all of a node's processes at once.
func (n *node) powerOff() {
	n.end(syscall.SIGKILL)
	_ = wait(context.Background(), settleTime/4, func() error {
		left := n.others()
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(left) > 0 {
			return fmt.Errorf("node %s has still %v", n.Name, left)
		}
		return nil
	})
	_ = os.RemoveAll(n.RAMDir)
}

// remove ends what a node has, for good.
func (n *node) remove() {
	n.powerOff()
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], n.RunDir+"/") {
			_ = exec.Command("umount", "-l", f[4]).Run()
		}
	}
}

func (b *bench) openGuest() {
	t := b.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	kernel, initrd := guestImage(t, b.dir, b.net, b.witness)
	_, err := b.client.Images.Create(ctx, api.ImageCreate{Name: "witness", Type: "kernel", Cmdline: "console=ttyS0 panic=-1 quiet"})
	for role, path := range map[string]string{"kernel": kernel, "initrd": initrd} {
		if err == nil {
			_, err = b.client.Images.UploadFile(ctx, "witness", role, path, func(int64) {})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	b.until("three nodes", time.Minute, func() error {
		all, err := b.client.Nodes.List(ctx, client.ListOptions{})
		if err == nil && len(all.Items) < nodes {
			err = fmt.Errorf("there are %d nodes", len(all.Items))
		}
		return err
	})
	change, err := b.client.VMs.Create(ctx, api.VMCreate{
		Name: vmName, CPUs: 1, MemoryBytes: 128 << 20, Image: "witness", Node: b.nodes[0].Name, Start: true,
		Disks: []api.VMDiskCreate{{SizeBytes: 32 << 20}}, NICs: []api.VMNICCreate{{Bridge: guestBridge}},
	})
	var job api.Job
	if err == nil {
		job, err = b.client.WaitChange(ctx, change, nil)
	}
	if err != nil {
		t.Fatalf("the guest is not made: %v %s %s", err, job.WaitReason, stepOf(job))
	}
	if err := b.witness.goesOn(5, time.Minute); err != nil {
		t.Fatal(err)
	}
}

// vmName of the guest.
const vmName = "witness"

// until waits for what must come true.
func (b *bench) until(what string, within time.Duration, is func() error) {
	b.t.Helper()
	if err := wait(b.t.Context(), within, is); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// errWrong is what no time mends.
var errWrong = errors.New("the guest")

// wait tries until it works, for a while, and gives why it did not.
func wait(ctx context.Context, within time.Duration, is func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		err := is()
		if err == nil {
			return nil
		}
		if errors.Is(err, errWrong) || (clock.System{}).Sleep(ctx, 50*time.Millisecond) != nil {
			return err
		}
	}
}

// dumpLogs shows the ends of the logs where a test failed.
func (b *bench) dumpLogs() {
	if !b.t.Failed() {
		return
	}
	logs, _ := filepath.Glob(filepath.Join(b.dir, "*.log"))
	for _, l := range logs {
		if c, err := os.ReadFile(l); err == nil {
			b.t.Logf("--- %s\n%s", filepath.Base(l), c[max(0, len(c)-8000):])
		}
	}
}
