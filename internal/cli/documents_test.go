package cli

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
)

// write makes a file of documents.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGet(t *testing.T) {
	b := newBench(t)
	b.on("GET /vms", 200, api.List[api.VM]{Items: []api.VM{someVM("web", "running"), someVM("db", "stopped")}})
	b.on("GET /vms/web", 200, someVM("web", "running"))
	b.on("GET /nodes/n1", 200, api.Node{Meta: api.Meta{Kind: "node", Name: "n1"}})
	b.on("GET /tokens", 200, api.List[api.Token]{Items: []api.Token{{ID: "t1", Name: "ci", Role: "reader"}}})
	if got := b.do(t, "get vms", 0); strings.Count(got, "\n---\n") != 1 || strings.Count(got, "\nname: ") != 2 || !strings.Contains(got, "  power: on\n") {
		t.Error(got)
	}
	if got := b.do(t, "get vm web", 0); strings.Contains(got, "---") || !strings.HasPrefix(got, "kind: vm\n") {
		t.Error(got)
	}
	if got := b.do(t, "get vm web -o json", 0); !strings.HasPrefix(got, "{\n  \"kind\": \"vm\"") {
		t.Error(got)
	}
	if got := b.do(t, "get vm -o json", 0); !strings.HasPrefix(got, "{\n  \"items\": [") {
		t.Error(got)
	}
	b.do(t, "get node n1", 0)
	if got := b.do(t, "get token ci", 0); !strings.Contains(got, "role: reader") {
		t.Error(got)
	}
	b.do(t, "get token cd", 3)
	b.do(t, "get", 2)
	b.do(t, "get vm -o table", 2)
	if got := b.do(t, "get vmm", 2); !strings.Contains(got, `did you mean "vm"?`) {
		t.Error(got)
	}
}

// What the server refuses of a document leads back to its file and line, and
// nothing is asked of it that changes anything.
func TestApplyTellsTheLine(t *testing.T) {
	b, dir := newBench(t), t.TempDir()
	path := write(t, dir, "a.yaml", "kind: vm\nname: a\nspec:\n  cpus: 1\n---\nkind: image\nname: i\nspec:\n  typ: disk\n")
	b.on("POST /apply", 422, api.Error{
		Code: "unknown_field", Detail: `/documents/0: there is no field "typ" here; did you mean "type"?`,
		Errors: []api.FieldError{{Code: "unknown_field", Field: "/documents/0/spec/typ", Message: `is unknown; did you mean "type"?`, Got: "typ"}},
	})
	expect(t, b.do(t, "apply -f "+path, 2), `error: image i: there is no field "typ" here; did you mean "type"? (unknown_field)
  `+path+`:9 /typ: is unknown; did you mean "type"? (got typ)
`)
	if got := b.requests(); len(got) != 1 || !strings.HasPrefix(got[0], `POST /api/v1/apply?dry_run=true {"documents":[{"kind":"image"`) {
		t.Errorf("asked %q", got)
	}
	b.do(t, "apply", 2)
	b.do(t, "apply -f "+dir+"/none.yaml", 2)
	b.do(t, "apply -f -", 2) // nothing comes
	write(t, dir, "b.json", `{"kind": "vm", "name": "a"}`)
	if got := b.do(t, "apply -f "+dir, 2); !strings.Contains(got, `vm "a" is declared twice, first at `+path+":1") {
		t.Error(got)
	}
	if n := len(b.requests()); n != 1 {
		t.Errorf("%d requests: what cannot be read was sent", n)
	}
}

func TestApplyRefused(t *testing.T) {
	b, dir := newBench(t), t.TempDir()
	path := write(t, dir, "a.yaml", "kind: vm\nname: a\nspec:\n  cpus: 3\n---\nkind: vm\nname: b\nspec: {}\n")
	b.on("POST /apply", 200, api.Applied{Results: []api.ApplyResult{
		{Kind: "vm", Name: "a", Action: "refused", Error: &api.Error{Code: "invalid_state", Detail: "cannot resize a", Errors: []api.FieldError{{Field: "/spec/cpus"}}}},
		{Kind: "vm", Name: "b", Action: "change", Fields: []string{"/spec/cpus"}},
	}})
	expect(t, b.do(t, "apply -f "+path, 4), `vm a: refused: cannot resize a (invalid_state, `+path+`:4)
vm b: not tried
error: 1 of 2 documents were not applied, 1 more were not tried; nothing was changed (invalid_state)
`)
	expect(t, b.do(t, "diff -f "+path, 4), `vm a: refused: cannot resize a (invalid_state, `+path+`:4)
error: 1 of 2 documents would be refused (invalid_state)
`)
	if n := len(b.requests()); n != 2 {
		t.Errorf("%d requests", n)
	}
}

// A project that is exported and applied to another cluster is the same project,
// to the letter; the way there and back goes by the program alone.
func TestProjectMoves(t *testing.T) {
	one, two := newMachine(t), newMachine(t)
	one.up("--sim 1")
	two.up("--sim 2")
	disk := one.file("disk.raw")
	one.do(0, "image import tiny --disk "+disk)
	told := filepath.Join(t.TempDir(), "user-data")
	const userData = "#cloud-config\r\nruncmd:\n  - [ sh, -c, \"echo 'a: b' # c\" ]   \n\n# é \t\n\n"
	if err := os.WriteFile(told, []byte(userData), 0o600); err != nil {
		t.Fatal(err)
	}
	one.do(0, "vm create web --image tiny --memory 128MiB --disk 64MiB --disk 32MiB --label tier=web --forward tcp:18080:80 --hostname www --user-data @"+told+" --start --wait")
	one.do(0, "vm create db --image tiny --memory 128MiB --disk 64MiB --disk 16MiB:tiny --wait")
	dir := filepath.Join(t.TempDir(), "project")
	one.do(0, "export --dir "+dir)
	text := one.do(0, "export")

	// the content of an image is not in its document, and that is said before
	// anything is changed
	if out := two.do(3, "apply -f "+dir); !strings.Contains(out, "image tiny: refused") || !strings.Contains(out, "novacron image import tiny --disk FILE") || !strings.Contains(out, "nothing was changed") {
		t.Error(out)
	}
	two.do(0, "image import tiny --disk "+disk)
	if out := two.do(0, "apply --dry-run -f "+dir); out != "image tiny: unchanged\nvm db: would be created\nvm web: would be created\n" {
		t.Error(out)
	}
	if out := two.do(9, "diff -f "+dir); !strings.Contains(out, "--- vm/web (is)\n+++ vm/web (declared)\n@@ -0,0 ") {
		t.Error(out)
	}
	if out := two.do(0, "apply --wait -f "+dir); !strings.Contains(out, "vm db: created\n") || !strings.HasSuffix(out, "vm web: created\n") {
		t.Error(out)
	}
	if got := two.do(0, "export"); got != text {
		t.Errorf("exported\n%s\nfrom what was made of\n%s", got, text)
	}
	if v := two.vm("web"); v.Status.State != "running" || v.Labels["tier"] != "web" || v.Spec.CloudInit == nil || v.Spec.CloudInit.UserData != userData {
		t.Errorf("%+v", v)
	}
	two.do(0, "diff -f "+dir)
	if out := two.do(0, "apply --wait -f "+dir); out != "image tiny: unchanged\nvm db: unchanged\nvm web: unchanged\n" {
		t.Error(out)
	}

	// one document that stops, grows, adds and starts again
	vm := strings.NewReplacer("power: off", "power: on", "cpus: 1", "cpus: 2", "size_bytes: 67108864", "size_bytes: 96MiB", "size_bytes: 16777216\n      image: tiny", "size_bytes: 16777216\n    - size_bytes: 8MiB")
	doc, err := os.ReadFile(filepath.Join(dir, "vm-db.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	changed := write(t, t.TempDir(), "db.yaml", vm.Replace(string(doc)))
	if out := two.do(9, "diff -f "+changed); !strings.Contains(out, "-  cpus: 1\n+  cpus: 2\n") {
		t.Error(out)
	}
	if out := two.do(0, "apply --wait -f "+changed); !strings.HasSuffix(out, "vm db: changed: cpus, disks/0/size_bytes, disks/2/size_bytes, power\n") {
		t.Error(out)
	}
	if v := two.vm("db"); v.Status.State != "running" || v.Spec.CPUs != 2 || len(v.Spec.Disks) != 3 {
		t.Errorf("%+v", v.Spec)
	}

	// what was read and has changed since is not written over; the rest is applied
	// if that is said
	old, code := two.run("", "get", "vm", "web")
	if code != 0 {
		t.Fatal(old)
	}
	two.do(0, "vm label web tier=front")
	both := write(t, t.TempDir(), "both.yaml", old+"---\n"+strings.Replace(string(doc), "name: db", "name: db2", 1))
	if out := two.do(4, "apply -f "+both); !strings.Contains(out, "vm web: refused: ") || !strings.Contains(out, "vm db2: not tried") {
		t.Error(out)
	}
	if out := two.do(4, "apply --keep-going --wait -f "+both); !strings.Contains(out, "vm db2: created") {
		t.Error(out)
	}

	if out := two.do(0, "delete --wait -f "+both); out != "vm db2: deleted\nvm web: deleted\n" {
		t.Error(out)
	}
	if out := two.do(0, "delete --wait -f "+dir); out != "vm web: is not there\nvm db: deleted\nimage tiny: deleted\n" {
		t.Error(out)
	}
	two.do(0, "delete --wait -f "+dir)
	one.movesWithImages(two, disk)
}

// movesWithImages moves a project with what is in its images: one command writes it,
// one makes it.
func (m *machine) movesWithImages(to *machine, disk string) {
	t := m.t
	t.Helper()
	noise := make([]byte, 3<<20)
	rand.Read(noise)
	copy(noise[0x202:], "HdrS")
	kernel, initrd := write(t, t.TempDir(), "kernel", string(noise)), write(t, t.TempDir(), "initrd", "070701"+string(noise[:1<<20]))
	m.do(0, "image import boot --kernel "+kernel+" --initrd "+initrd+" --cmdline quiet --alias default")
	m.do(0, "image import same --disk "+disk)
	text := m.do(0, "export")
	dir := filepath.Join(t.TempDir(), "moved")
	if out := m.do(0, "export --images --dir "+dir); !strings.Contains(out, "3 files of images (") || !strings.Contains(out, "5 documents in ") {
		t.Error(out)
	}
	m.do(0, "export --images --dir "+dir) // what is there is not read again
	if out := to.do(0, "apply --dry-run -f "+dir); !strings.Contains(out, "image boot: would be imported\nimage same: would be imported\nimage tiny: would be imported\nvm db: not tried\n") {
		t.Error(out)
	}
	if got := to.do(0, "export"); got != "" {
		t.Errorf("a dry run made %s", got)
	}
	files, err := filepath.Glob(filepath.Join(dir, "images", "*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%v %v", files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Dir(files[0]), filepath.Base(files[0]), "x"+string(whole[1:]))
	if out := to.do(4, "apply -f "+dir); !strings.Contains(out, filepath.Base(files[0])+" is damaged: its SHA-256 is ") {
		t.Error(out)
	}
	if got := to.do(0, "export"); got != "" {
		t.Errorf("damaged content made %s", got)
	}
	// an export goes on where it broke off, and what is damaged is read again
	write(t, filepath.Dir(files[0]), filepath.Base(files[0])+".part", string(whole[:len(whole)/2]))
	m.do(0, "export --images --dir "+dir)
	if out := to.do(0, "apply --wait -f "+dir); !strings.Contains(out, "image boot: imported, changed: aliases/0\nimage same: imported\nimage tiny: imported\n") || !strings.Contains(out, "vm db: created\n") {
		t.Error(out)
	}
	if got := to.do(0, "export"); got != text {
		t.Errorf("exported\n%s\nfrom what was made of\n%s", got, text)
	}
	if v := to.vm("web"); v.Status.State != "running" {
		t.Errorf("%+v", v.Status)
	}
	// byte for byte
	for _, of := range []struct{ image, role, path string }{{"tiny", "disk", disk}, {"default", "kernel", kernel}, {"boot", "initrd", initrd}} {
		out := filepath.Join(t.TempDir(), "out")
		to.do(0, "image export "+of.image+" --"+of.role+" "+out)
		want, err := os.ReadFile(of.path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the %s of %s: %d bytes, %v", of.role, of.image, len(got), err)
		}
	}
	to.do(3, "image export tiny --kernel "+filepath.Join(t.TempDir(), "k"))
	to.do(2, "image export tiny")
	to.do(2, "export --images")
}

func TestDeleteLooksFirst(t *testing.T) {
	b, dir := newBench(t), t.TempDir()
	b.on("GET /vms/web", 200, someVM("web", "running"))
	path := write(t, dir, "a.yaml", "kind: vm\nname: web\n---\nkind: vm\nname: web2\nid: old\n")
	b.on("GET /vms/web2", 200, someVM("web2", "running"))
	if out := b.do(t, "delete -f "+path, 4); !strings.Contains(out, path+`:6: vm "web2" is another one by now`) {
		t.Error(out)
	}
	if out := b.do(t, "delete -f "+write(t, dir, "n.yaml", "kind: node\nname: n\n---\nkind: vm\nname: web\n"), 2); !strings.Contains(out, "a node is not deleted by its document") {
		t.Error(out)
	}
	safe := someVM("safe", "stopped")
	safe.Spec.Protected = true
	b.on("GET /vms/safe", 200, safe)
	if out := b.do(t, "delete -f "+write(t, dir, "s.yaml", "kind: vm\nname: safe\n---\nkind: vm\nname: web\n"), 4); !strings.Contains(out, `vm "safe" is protected`) {
		t.Error(out)
	}
	gone := write(t, dir, "g.yaml", "kind: vm\nname: gone\n")
	b.on("GET /vms/gone", 404, api.Error{Code: "not_found", Detail: "there is no vm"})
	var doc api.Applied
	if err := json.Unmarshal([]byte(b.do(t, "delete -o json -f "+gone, 0)), &doc); err != nil || len(doc.Results) != 1 || doc.Results[0].Action != "absent" {
		t.Errorf("%+v %v", doc, err)
	}
	for _, r := range b.requests() {
		if strings.HasPrefix(r, "DELETE") {
			t.Error(r)
		}
	}
}

// script answers applications one after the other, as a server whose state
// changes between them.
func (b *bench) script(t *testing.T, answers ...api.Applied) {
	t.Helper()
	n := 0
	b.mux.HandleFunc("POST /api/v1/apply", func(w http.ResponseWriter, _ *http.Request) {
		if n >= len(answers) {
			t.Error("one application too many")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answers[n])
		n++
	})
	t.Cleanup(func() {
		if n != len(answers) {
			t.Errorf("%d applications, want %d", n, len(answers))
		}
	})
}

func results(rs ...api.ApplyResult) api.Applied { return api.Applied{Results: rs} }

func resultOf(name, action, job string, more bool, refused *api.Error) api.ApplyResult {
	return api.ApplyResult{Kind: "vm", Name: name, Action: action, Job: job, More: more, Error: refused, Fields: []string{"/spec/cpus"}}
}

const three = "kind: vm\nname: a\nrevision: 4\nspec: {cpus: 1}\n---\nkind: vm\nname: b\nspec: {cpus: 1}\n---\nkind: vm\nname: c\nspec: {cpus: 1}\n"

// What is refused although it was judged well ends it, and is told apart from
// what was done and what was not tried.
func TestApplyEndsAtTheFirstFailure(t *testing.T) {
	plan := results(resultOf("a", "change", "", true, nil), resultOf("b", "change", "", false, nil), resultOf("c", "create", "", false, nil))
	late := resultOf("b", "refused", "", false, &api.Error{Code: "vm_busy", Detail: "a job holds b"})
	b := newBench(t)
	path := write(t, t.TempDir(), "abc.yaml", three)
	b.script(t, plan, results(resultOf("a", "change", "j1", true, nil)), results(resultOf("a", "change", "", false, nil)), results(late))
	b.on("GET /jobs/j1", 200, someJob("succeeded"))
	expect(t, b.do(t, "apply -f "+path, 4), `vm a: changed: cpus
vm b: refused: a job holds b (vm_busy, `+path+`:6)
vm c: not tried
error: 1 of 3 documents were not applied, 1 more were not tried; 2 changes were made (vm_busy)
`)
	asked := b.requests()
	if !strings.Contains(asked[1], `"revision":4`) || strings.Contains(asked[len(asked)-2], "revision") {
		t.Errorf("the revision is of the first change alone: %q", asked)
	}

	b = newBench(t)
	b.script(t, plan, results(resultOf("a", "change", "", false, nil)), results(late), results(resultOf("c", "create", "j2", false, nil)))
	expect(t, b.do(t, "apply --keep-going -f "+path, 4), `vm a: changed: cpus
vm b: refused: a job holds b (vm_busy, `+path+`:6)
vm c: created (job j2)
error: 1 of 3 documents were not applied, 0 more were not tried; 2 changes were made (vm_busy)
`)
}

// A job that fails fails its object; between two changes it ends what comes after.
func TestApplyTellsFailedJobs(t *testing.T) {
	plan := results(resultOf("a", "change", "", true, nil), resultOf("b", "change", "", false, nil), resultOf("c", "create", "", false, nil))
	path := write(t, t.TempDir(), "abc.yaml", three)
	b := newBench(t)
	b.script(t, plan, results(resultOf("a", "change", "j1", true, nil)))
	b.on("GET /jobs/j1", 200, someJob("failed"))
	if out := b.do(t, "apply -f "+path, 7); !strings.HasPrefix(out, "vm a: failed: vm.start of vm web did not succeed: QEMU ended at once (job_failed, "+path+":1)\nvm b: not tried\nvm c: not tried\nerror: ") {
		t.Error(out)
	}
	b = newBench(t)
	b.script(t, plan, results(resultOf("a", "none", "", false, nil)), results(resultOf("b", "change", "", false, nil)), results(resultOf("c", "create", "j1", false, nil)))
	b.on("GET /jobs/j1", 200, someJob("failed"))
	var doc api.Applied
	b.do(t, "apply --wait -o json -f "+path, 7)
	if err := json.Unmarshal(b.stdout.Bytes(), &doc); err != nil || len(doc.Results) != 3 || doc.Results[2].Error == nil || doc.Results[2].Error.Code != "job_failed" {
		t.Errorf("%+v %v", doc, err)
	}
}
