package e2e

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// moved is what a move of a guest took.
type moved struct {
	// whole is from asking for it until all that belongs to it was done.
	whole time.Duration
	// memory is how long its memory was sent for.
	memory time.Duration
	// silence is for how long nobody heard the guest.
	silence time.Duration
	// driver and control are the parts of the product: what its hypervisor's drivers took
	// of a job, and what the rest of it took; zero for others.
	driver, control time.Duration
}

// mover is one way of moving a guest to and fro.
type mover interface {
	// move moves it once.
	move(b *testing.B) moved
}

// ours is the product: a server, two agents, and a guest.
type ours struct {
	i     *instance
	c     *client.Client
	guest *guest
	nodes []string
	// calls is the file in which the agents write what their drivers take, of which so
	// much was read.
	calls string
	read  int
}

const movedVM = "moved"

// openOurs starts a cluster and its guest, and does not wait for that.
func openOurs(b *testing.B, f *field, memory int64, g *guest) *ours {
	b.Helper()
	i := up(b, "--nodes", "0")
	o := &ours{i: i, c: i.client(), guest: g, calls: filepath.Join(f.dir, "calls")}
	for k := range 2 {
		o.openAgent(b, f, fmt.Sprintf("n%d", k+1))
	}
	i.eventually("two nodes", func() (bool, string) {
		all, err := o.c.Nodes.List(b.Context(), client.ListOptions{})
		return err == nil && len(all.Items) == len(o.nodes), fmt.Sprintf("%d nodes, %v", len(all.Items), err)
	})
	i.must("image", "import", "pulse", "--kernel", f.kernel, "--initrd", f.initrd, "--cmdline", g.cmdline)
	change, err := o.c.VMs.Create(b.Context(), api.VMCreate{
		Name: movedVM, CPUs: 1, MemoryBytes: api.Bytes(memory), Image: "pulse", Start: true, NICs: []api.VMNICCreate{{Bridge: f.bridge}},
	})
	if err != nil {
		b.Fatal(err)
	}
	done(b, o.c, change)
	b.Cleanup(func() {
		i.must("vm", "stop", movedVM, "--force", "--wait")
		i.must("vm", "delete", movedVM, "--wait", "--yes")
	})
	return o
}

// openAgent starts a node whose agent is the test's binary.
func (o *ours) openAgent(b *testing.B, f *field, name string) {
	b.Helper()
	home := filepath.Join(f.dir, name)
	c := timedConfig{
		Name: name, DataDir: filepath.Join(home, "data"), RunDir: filepath.Join(home, "run"), RAMDir: "/dev/shm/" + filepath.Base(f.dir) + "-" + name,
		Bridges: []string{f.bridge}, Calls: o.calls,
	}
	token, err := o.c.Nodes.Token(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	c.Join = token.Token
	doc, err := json.Marshal(c)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.Mkdir(home, 0o755); err != nil {
		b.Fatal(err)
	}
	log, err := os.Create(filepath.Join(f.dir, name+".log"))
	if err != nil {
		b.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe, timedFace)
	cmd.Env = append(os.Environ(), timedEnv+"="+string(doc))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	o.nodes = append(o.nodes, name)
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && b.Failed() {
			b.Logf("--- %s\n%s", name, text[max(0, len(text)-6000):])
		}
		_ = log.Close()
		for _, p := range hypertest.Processes(home) { // of a guest that could not be removed
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
		_ = os.RemoveAll(c.RAMDir)
	})
}

func (o *ours) move(b *testing.B) moved {
	b.Helper()
	o.guest.goesOn(b, 3)
	at := o.i.nodeOf(movedVM)
	to := o.nodes[0]
	if to == at {
		to = o.nodes[1]
	}
	o.spans(b)
	o.guest.forget()
	begin := clock.System{}.Boot()
	change, err := o.c.VMs.Migrate(b.Context(), movedVM, api.VMMigrate{Node: to})
	if err != nil {
		b.Fatal(err)
	}
	accepted := clock.System{}.Boot()
	job, err := o.c.WaitChange(b.Context(), change, nil)
	end := clock.System{}.Boot()
	if err != nil || job.FinishedAt == nil {
		b.Fatalf("%+v %v", job, err)
	}
	out := moved{whole: end - begin, silence: o.guest.goesOn(b, 3)}
	spans := o.spans(b)
	for _, s := range spans {
		if s.What == spanMemory {
			out.memory = s.End - s.Begin
		}
	}
	out.driver = driven(spans, accepted, end)
	out.control = job.FinishedAt.Sub(job.CreatedAt) - out.driver
	if now := o.i.nodeOf(movedVM); now != to || out.memory == 0 {
		b.Fatalf("the guest is on %s and should be on %s, and its memory took %v", now, to, out.memory)
	}
	return out
}

// spans reads what the drivers have done since it was called last.
func (o *ours) spans(b *testing.B) (out []span) {
	b.Helper()
	text, err := os.ReadFile(o.calls)
	if err != nil {
		b.Fatal(err)
	}
	fresh := text[o.read:]
	fresh = fresh[:bytes.LastIndexByte(fresh, '\n')+1]
	o.read += len(fresh)
	for line := range bytes.Lines(fresh) {
		var s span
		if err := json.Unmarshal(line, &s); err != nil {
			b.Fatalf("%s: %v", line, err)
		}
		out = append(out, s)
	}
	return out
}

// driven is for how much of the time between begin and end drivers did something. A target
// that waits until its guest has arrived does nothing until its source has sent it.
func driven(spans []span, begin, end time.Duration) (sum time.Duration) {
	var sent time.Duration
	for _, s := range spans {
		if s.What == spanMemory {
			sent = s.End
		}
	}
	spans = slices.Clone(spans)
	for k, s := range spans {
		if s.What == spanArrived {
			spans[k].Begin = max(s.Begin, sent)
		}
	}
	slices.SortFunc(spans, func(x, y span) int { return cmp.Compare(x.Begin, y.Begin) })
	for _, s := range spans {
		begin = max(begin, s.Begin)
		if until := min(s.End, end); until > begin {
			sum += until - begin
			begin = until
		}
	}
	return sum
}
