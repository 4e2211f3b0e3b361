package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// The test binary is the program when it is called by its name, which is how the
// supervisor calls its children.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "novacron" {
		os.Exit(Main(os.Args[1:], "test"))
	}
	os.Exit(m.Run())
}

// bench is a command line without terminal or home, before a server that answers
// what the test says.
type bench struct {
	*app
	stdout, stderr bytes.Buffer
	vars           map[string]string
	mux            *http.ServeMux
	mu             sync.Mutex // an event stream may be asked for beside the rest
	asked          []string
}

// requests are what was asked so far, in the order it came.
func (b *bench) requests() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.asked)
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("", "nvcli") //nolint:usetesting // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{mux: http.NewServeMux(), vars: map[string]string{
		"NOVACRON_SOCKET": filepath.Join(dir, "s"), "HOME": dir, "NOVACRON_DATA_DIR": filepath.Join(dir, "data"),
	}}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		b.asked = append(b.asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
		b.mu.Unlock()
		b.mux.ServeHTTP(w, r)
	})}}
	srv.Start()
	t.Cleanup(srv.Close)
	b.app = &app{
		in: strings.NewReader(""), out: &b.stdout, err: &b.stderr, clock: clock.NewFake(), version: "test", retryFor: -1,
		env: func(k string) string { return b.vars[k] },
	}
	return b
}

// on answers a route with a document.
func (b *bench) on(route string, status int, doc any) {
	method, path, _ := strings.Cut(route, " ")
	b.mux.HandleFunc(method+" /api/v1"+path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(doc)
	})
}

// do runs a command line, words parted by spaces.
func (b *bench) do(t *testing.T, line string, code int) string {
	t.Helper()
	return b.args(t, code, strings.Fields(line)...)
}

func (b *bench) args(t *testing.T, code int, args ...string) string {
	t.Helper()
	b.stdout.Reset()
	b.stderr.Reset()
	b.flags = globals{}
	if got := b.run(t.Context(), args); got != code {
		t.Errorf("novacron %q ended with %d, want %d\n%s%s", args, got, code, b.stdout.String(), b.stderr.String())
	}
	return b.stdout.String() + b.stderr.String()
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

var birth = time.Date(2025, 12, 31, 21, 0, 0, 0, time.UTC) // three hours before the fake clock

func someVM(name, state string) api.VM {
	return api.VM{
		Meta:   api.Meta{Kind: "vm", ID: "id-" + name, Name: name, Labels: map[string]string{"tier": "web"}, Revision: 4, CreatedAt: birth, UpdatedAt: birth},
		Spec:   api.VMSpec{CPUs: 2, MemoryBytes: 512 << 20, Image: "debian", Power: "on", Autostart: true, Disks: []api.VMDisk{{SizeBytes: 10 << 30, Image: "debian"}, {Slot: 1, SizeBytes: 1 << 30}}},
		Status: api.VMStatus{State: state, Node: "node-1", Since: birth},
	}
}

func someJob(state string) api.Job {
	end := birth.Add(1500 * time.Millisecond)
	j := api.Job{
		Kind: "job", ID: "j1", Type: "vm.start", Target: api.JobTarget{Kind: "vm", Name: "web"}, State: state, Progress: 100,
		CreatedAt: birth, StartedAt: &birth, FinishedAt: &end, CreatedBy: "uid 0",
		Steps: []api.JobStep{{Name: "launch", State: "done", StartedAt: birth, FinishedAt: &end}},
	}
	if state == "failed" {
		j.Error = &api.JobError{Code: "host_failure", Detail: "QEMU ended at once"}
		j.Steps[0].State, j.Steps[0].Error = "failed", "exit status 1"
	}
	return j
}

func TestVMListAndShow(t *testing.T) {
	b := newBench(t)
	b.on("GET /vms", 200, api.List[api.VM]{Items: []api.VM{someVM("web", "running"), someVM("db", "stopped")}})
	v := someVM("lost", "pending")
	v.Status.Placement = []api.PlacementReason{{Node: "node-1", Reasons: []string{"memory: 1 GiB too little", "cordoned"}}}
	v.Spec.NICs = []api.VMNIC{{MAC: "52:54:00:00:00:01", Forwards: []api.Forward{{Protocol: "tcp", HostIP: "127.0.0.1", HostPort: 8080, GuestPort: 80}}}}
	b.on("GET /vms/lost", 200, v)
	expect(t, b.do(t, "vm list", 0), `NAME   STATE     NODE     CPUS   MEMORY    AGE
web    running   node-1   2      512 MiB   3h
db     stopped   node-1   2      512 MiB   3h
`)
	expect(t, b.do(t, "vms ls -o wide", 0), `NAME   STATE     NODE     CPUS   MEMORY    AGE   ADDRESS   IMAGE    DISKS          LABELS     REASON   ID
web    running   node-1   2      512 MiB   3h    -         debian   10 GiB+1 GiB   tier=web   -        id-web
db     stopped   node-1   2      512 MiB   3h    -         debian   10 GiB+1 GiB   tier=web   -        id-db
`)
	expect(t, b.do(t, "vm show lost", 0), `name:            lost
id:              id-lost
state:           pending
since:           3h ago (2025-12-31T21:00:00Z)
node:            node-1
power:           on
cpus:            2
memory:          512 MiB
image:           debian
labels:          tier=web
created:         3h ago (2025-12-31T21:00:00Z)
revision:        4
disk 0:          10 GiB from debian
disk 1:          1 GiB
nic 0:           52:54:00:00:00:01, tcp 127.0.0.1:8080 to 80
not on node-1:   memory: 1 GiB too little; cordoned
`)
	var got api.VM
	if err := json.Unmarshal([]byte(b.do(t, "vm show lost -o json", 0)), &got); err != nil || cmp.Diff(v, got) != "" {
		t.Errorf("JSON is not the document: %v\n%s", err, cmp.Diff(v, got))
	}
}

func TestVMCreateAsks(t *testing.T) {
	b := newBench(t)
	b.on("POST /vms", 202, api.Accepted{Job: someJob("queued")})
	b.on("GET /jobs/j1", 200, someJob("succeeded"))
	got := b.do(t, "vm create web --image debian --cpus 2 --memory 1GiB --disk 10GiB --disk 1GiB --forward tcp:8080:80 "+
		"--forward udp:[::1]:53:5353 --label a=b --node n --start --wait", 0)
	expect(t, got, "vm.start web: done in 1.5s\n")
	expect(t, b.requests()[0], `POST /api/v1/vms {"name":"web","labels":{"a":"b"},"cpus":2,"memory_bytes":1073741824,"image":"debian",`+
		`"disks":[{"size_bytes":10737418240},{"size_bytes":1073741824}],"nics":[{"forwards":[`+
		`{"protocol":"tcp","host_port":8080,"guest_port":80},{"protocol":"udp","host_ip":"::1","host_port":53,"guest_port":5353}]}],`+
		`"start":true,"node":"n"}`)
	expect(t, b.do(t, "vm create web", 0), "create web: accepted as job j1\nfollow it with: novacron job wait j1\n")
}

func TestActions(t *testing.T) {
	b := newBench(t)
	b.on("POST /vms/web/start", 200, map[string]any{"job": api.Job{}})
	b.on("POST /vms/web/stop", 202, api.Accepted{Job: someJob("queued")})
	b.on("POST /vms/busy/pause", 409, api.Error{
		Code: "vm_busy", Detail: "vm busy is held by another job", Job: "j9", RequestID: "r1", Retryable: true,
		Blockers: []string{"job j9"},
	})
	b.on("GET /jobs/j1", 200, someJob("failed"))
	expect(t, b.do(t, "vm start web", 0), "start web: nothing was left to do\n")
	expect(t, b.do(t, "vm pause busy", 4), `error: vm busy is held by another job (vm_busy)
  in the way: job j9
  held by job j9
  next: novacron job wait j9
  request: r1
`)
	expect(t, b.do(t, "vm stop web --grace 5 --wait", 7), `error: vm.start of vm web did not succeed: QEMU ended at once
  code: host_failure
  step launch: exit status 1
  next: novacron job show j1
`)
	if want := `POST /api/v1/vms/web/stop {"grace_seconds":5}`; b.requests()[2] != want {
		t.Errorf("asked %s", b.requests()[2])
	}
	var doc struct{ Code, Job string }
	if err := json.Unmarshal([]byte(b.do(t, "vm stop web --wait -o json", 7)), &doc); err != nil || doc.Code != "job_failed" || doc.Job != "j1" {
		t.Errorf("got %+v, %v: %s", doc, err, b.stderr.String())
	}
}

func TestLabelsAreMerged(t *testing.T) {
	b := newBench(t)
	b.on("GET /vms/web", 200, someVM("web", "running"))
	b.on("PATCH /vms/id-web", 200, someVM("web", "running"))
	b.do(t, "vm label web a=1 gone- tier-", 0)
	expect(t, b.requests()[1], `PATCH /api/v1/vms/id-web {"labels":{"a":"1"}}`)
	b.do(t, "vm label web", 2)
	b.do(t, "vm label web nonsense", 2)
}

func TestErrorsTellFieldsAndNext(t *testing.T) {
	b := newBench(t)
	b.on("POST /vms", 422, api.Error{
		Code: "out_of_range", Detail: "the VM cannot be made so",
		Errors: []api.FieldError{{Field: "/cpus", Message: "is out of range", Got: "0", Limit: "1 to 64"}},
	})
	b.on("GET /vms/web", 404, api.Error{Code: "not_found", Detail: "there is no vm \"web\"\x1b[2J"})
	expect(t, b.do(t, "vm create web --cpus 0", 2), `error: the VM cannot be made so (out_of_range)
  /cpus: is out of range (got 0, limit 1 to 64)
`)
	expect(t, b.do(t, "vm show web", 3), "error: there is no vm \"web\"\\u001b[2J (not_found)\n  next: novacron vm list\n")
}

func TestUsage(t *testing.T) {
	b := newBench(t)
	cases := map[string]string{
		"vm crate":                       `"crate" is not a command of novacron vm; did you mean create?`,
		"vmm":                            `"vmm" is not a command of novacron; did you mean vm?`,
		"vm show":                        "NAME is missing: novacron vm show NAME",
		"vm show a b":                    `"b" is too much: novacron vm show NAME`,
		"vm start":                       "NAME is missing: novacron vm start NAME...",
		"vm list --frobnicate":           "unknown flag: --frobnicate",
		"vm list -o xml":                 `-o takes table, wide, json, yaml, not "xml"`,
		"vm list --filter x":             `--filter takes name=value, not "x"`,
		"vm list --socket a --address b": "--socket, --address and --context each name a server: give one of them",
		"vm create x --memory 1.5G":      `--memory: "1.5G" is not a size`,
		"vm create x --disk x":           `--disk: "x" is not a size`,
		"vm create x --forward 80":       `--forward: "80" is not protocol`,
		"vm create x --label y":          "--label takes key=value",
		"image import x":                 "an image is --disk FILE, or --iso FILE, or --kernel FILE --initrd FILE",
		"image import x --disk /none":    "--disk: stat /none",
		"context add x":                  "say where the cluster is",
		"clean":                          "say --yes to do it",
		"server":                         "no database is named",
		"up --nodes 99":                  "one machine holds 0 to 16 nodes",
		"up --listen nonsense":           `"nonsense" is not host:port`,
	}
	for line, want := range cases {
		if got := b.do(t, line, 2); !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %s", line, got, want)
		}
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	b := newBench(t)
	for _, line := range []string{"", "help", "vm", "vm create --help", "up --help", "help exit-codes", "version", "completion bash"} {
		if got := b.do(t, line, 0); len(got) < 12 {
			t.Errorf("novacron %s: %s", line, got)
		}
	}
	if got := b.do(t, "help exit-codes", 0); !strings.Contains(got, "130  interrupted") {
		t.Error(got)
	}
}

func TestOtherLists(t *testing.T) {
	b := newBench(t)
	b.on("GET /jobs", 200, api.List[api.Job]{Items: []api.Job{someJob("succeeded"), someJob("failed")}})
	b.on("GET /jobs/j1", 200, someJob("failed"))
	b.on("GET /nodes", 200, api.List[api.Node]{Items: []api.Node{{
		Meta: api.Meta{Name: "node-1"},
		Status: api.NodeStatus{
			State: "ready", VMs: 1, SeenAt: birth, Used: api.Resources{CPUs: 1, MemoryBytes: 1 << 30},
			Capacity: api.Resources{CPUs: 4, MemoryBytes: 8 << 30, DiskBytes: 1 << 40}, Inventory: api.Inventory{Acceleration: "kvm"},
		},
	}}})
	b.on("GET /tokens", 200, api.List[api.Token]{Items: []api.Token{{ID: "t", Name: "ci", Role: "reader", CreatedAt: birth, RevokedAt: &birth}}})
	b.on("GET /debug/tasks", 200, api.List[api.Task]{Items: []api.Task{{Name: "sweep", PeriodMS: 5000, Active: true, Activations: 3, LastStart: &birth, LastStatus: json.RawMessage(`{"removed":0}`)}}})
	b.on("GET /audit", 200, api.List[api.AuditRecord]{Items: []api.AuditRecord{{Seq: 7, At: birth, Principal: "uid 0", Action: "vm.start", Object: api.JobTarget{Kind: "vm", Name: "web"}, Outcome: "denied"}}})
	b.on("GET /audit/verify", 200, api.AuditVerified{Records: 9, Problem: "record 3 was changed"})
	b.on("GET /images", 200, api.List[api.Image]{Items: []api.Image{{Meta: api.Meta{Name: "tiny", CreatedAt: birth}, Spec: api.ImageSpec{Type: "kernel", Aliases: []string{"stable"}}, Status: api.ImageStatus{State: "ready", Files: []api.ImageFile{{Role: "kernel", SizeBytes: 1 << 20, Format: "raw"}}}}}})
	expect(t, b.do(t, "job list --limit 1", 0), `ID   TYPE       TARGET   STATE       PROGRESS   AGE
j1   vm.start   vm web   succeeded   100%       3h
These are the first 1; there are more. Show all with --all, or fewer with a filter.
`)
	expect(t, b.do(t, "job show j1", 0), `id:            j1
type:          vm.start
target:        vm web
state:         failed
progress:      [########################] 100%
by:            uid 0
created:       3h ago (2025-12-31T21:00:00Z)
took:          1.5s
error:         QEMU ended at once (host_failure)
step launch:   failed, 1.5s: exit status 1
`)
	expect(t, b.do(t, "node list", 0), `NAME     STATE   VMS   CPUS     MEMORY           DISK         ACCELERATION   SEEN
node-1   ready   1     1 of 4   1 GiB of 8 GiB   0 of 1 TiB   kvm            3h
`)
	expect(t, b.do(t, "token list", 0), "ID   NAME   ROLE     EXPIRES   USED   AGE\nt    ci     reader   revoked   -      3h\n")
	expect(t, b.do(t, "debug tasks", 0), "NAME    STATE   PERIOD   RUNS   FAILURES   LAST   TOOK    STATUS\nsweep   ok      5s       3      0          3h     0.0ms   {\"removed\":0}\n")
	expect(t, b.do(t, "audit list", 0), "SEQ   AT                     WHO     ACTION     OBJECT   OUTCOME\n7     2025-12-31T21:00:00Z   uid 0   vm.start   vm web   denied\n")
	expect(t, b.do(t, "audit verify", 4), "error: the audit log is broken: record 3 was changed (conflict)\n")
	expect(t, b.do(t, "image list -o wide", 0), "NAME   TYPE     STATE   SIZE    AGE   ALIASES   FILES          ID\ntiny   kernel   ready   1 MiB   3h    stable    kernel (raw)   -\n")
}

func TestTokensAreShownOnce(t *testing.T) {
	b := newBench(t)
	end := b.clock.Now().Add(15 * time.Minute)
	b.on("POST /node-tokens", 201, api.NodeToken{Token: "nvj_x", ExpiresAt: end, Command: "novacron agent --join nvj_x"})
	b.on("POST /tokens", 201, api.Token{Token: "nvc_x", Role: "reader", ExpiresAt: &end})
	b.do(t, "node token", 0)
	expect(t, b.stdout.String(), "nvj_x\n")
	b.do(t, "token create ci --expires-in 1h", 0)
	expect(t, b.stdout.String(), "nvc_x\n")
	expect(t, b.requests()[1], `POST /api/v1/tokens {"name":"ci","role":"reader","expires_in_seconds":3600}`)
}

func TestWaitTimesOut(t *testing.T) {
	b := newBench(t)
	b.on("GET /jobs/j1", 200, someJob("running"))
	got := b.do(t, "job wait j1 --timeout 120ms", 6)
	if want := "it was not done within 120ms; the job goes on (timeout)"; !strings.Contains(got, want) {
		t.Errorf("got %s", got)
	}
}

func ExampleMain() {
	fmt.Println(Main([]string{"version"}, "v1.0.0"))
	// Output:
	// novacron v1.0.0
	// 0
}
