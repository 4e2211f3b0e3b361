package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
)

// apply sends documents, as a person writes them.
func (r *running) apply(query string, docs ...string) []api.ApplyResult {
	r.t.Helper()
	status, raw := r.raw("POST", "/api/v1/apply"+query, `{"documents":[`+strings.Join(docs, ",")+`]}`)
	var out api.Applied
	if err := json.Unmarshal(raw, &out); err != nil || status != http.StatusOK {
		r.t.Fatalf("apply: %d %s", status, raw)
	}
	return out.Results
}

// sums tells what became of documents on one line each.
func sums(results []api.ApplyResult) string {
	var b strings.Builder
	for _, r := range results {
		fmt.Fprintf(&b, "%s %s: %s %s", r.Kind, r.Name, r.Action, strings.Join(r.Fields, " "))
		if r.Error != nil {
			b.WriteString(r.Error.Code)
			for _, f := range r.Error.Errors {
				b.WriteString(" " + f.Field)
			}
		}
		if r.More {
			b.WriteString(" more")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (r *running) applied(want, query string, docs ...string) []api.ApplyResult {
	r.t.Helper()
	results := r.apply(query, docs...)
	if diff := cmp.Diff(want, sums(results)); diff != "" {
		r.t.Errorf("-want +got\n%s\n%+v", diff, results)
	}
	return results
}

// settled waits for the job of a result.
func (r *running) settled(res api.ApplyResult) {
	r.t.Helper()
	for range 600 {
		if j, _ := call[api.Job](r, "GET", "/api/v1/jobs/"+res.Job, nil); j.Ended() {
			if j.State != "succeeded" {
				r.t.Fatalf("%+v", j)
			}
			return
		}
		r.wait()
	}
	r.t.Fatalf("job %s does not end", res.Job)
}

const webDoc = `{"kind":"vm","name":"web","labels":{"tier":"web"},"spec":{"cpus":1,"memory_bytes":"128MiB","image":"tiny","power":"off","disks":[{"size_bytes":"64MiB"}],"nics":[{}]}}`

// A document makes what is missing, changes what differs and leaves alone what is
// equal; the way through several changes leads over their jobs.
func TestApply(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	r.nodes(1)
	r.image("tiny")
	made := r.applied("vm web: create \n", "", webDoc)
	r.settled(made[0])
	r.applied("vm web: none \n", "", webDoc)
	before, _ := call[api.VM](r, "GET", "/api/v1/vms/web", nil)

	on := strings.NewReplacer(`"power":"off"`, `"power":"on"`, `"cpus":1`, `"cpus":2`, `[{"size_bytes":"64MiB"}]`, `[{"size_bytes":"96MiB"},{"size_bytes":"32MiB"}]`,
		`"tier":"web"`, `"tier":"db"`).Replace(webDoc)
	all := "/labels/tier /spec/cpus /spec/disks/0/size_bytes /spec/disks/1/size_bytes /spec/power"
	r.applied("vm web: change "+all+"\n", "?dry_run=true", on)
	for _, want := range []string{
		"change " + all + " more", "change /spec/disks/0/size_bytes /spec/disks/1/size_bytes /spec/power more",
		"change /spec/disks/1/size_bytes /spec/power more", "change /spec/power", "none ",
	} {
		res := r.applied("vm web: "+want+"\n", "", on)
		if res[0].Job != "" {
			r.settled(res[0])
		}
	}
	v, _ := call[api.VM](r, "GET", "/api/v1/vms/web", nil)
	if v.Status.State != "running" || v.Spec.CPUs != 2 || len(v.Spec.Disks) != 2 || v.Spec.Disks[0].SizeBytes != 96<<20 || v.Labels["tier"] != "db" || v.ID != before.ID {
		t.Errorf("%+v", v)
	}

	// what a stopped VM takes is refused, by the rules of each request
	r.applied("vm web: refused invalid_state\n", "", strings.Replace(on, `"cpus":2`, `"cpus":3`, 1))
	// unless it is declared to be off: then it is stopped first
	r.applied("vm web: change /spec/cpus /spec/power\n", "?dry_run=true", strings.NewReplacer(`"cpus":2`, `"cpus":3`, `"power":"on"`, `"power":"off"`).Replace(on))
	for what, want := range map[string][2]string{
		"smaller":   {strings.Replace(on, "96MiB", "64MiB", 1), "shrink_not_allowed /spec/disks/0/size_bytes"},
		"lost disk": {strings.Replace(on, `,{"size_bytes":"32MiB"}`, "", 1), "conflict /spec/disks"},
		"image":     {strings.Replace(on, `"image":"tiny"`, `"image":"other"`, 1), "not_found"},
		"nics":      {strings.Replace(on, `"nics":[{}]`, `"nics":[]`, 1), "field_not_writable /spec/nics"},
		"range":     {strings.Replace(on, `"cpus":2`, `"cpus":100000`, 1), "out_of_range /spec/cpus"},
		"label":     {strings.Replace(on, `"db"`, `"a b"`, 1), "invalid_field /labels/tier"},
		"revision":  {strings.Replace(on, `"name":"web"`, fmt.Sprintf(`"name":"web","revision":%d`, before.Revision), 1), "revision_mismatch /revision"},
		"id":        {strings.Replace(on, `"name":"web"`, `"name":"web","id":"0192f0c1-2d6f-7000-8000-000000000000"`, 1), "conflict /id"},
		"gone":      {strings.Replace(on, `"name":"web"`, `"name":"web2","revision":3`, 1), "conflict /id"},
	} {
		t.Run(what, func(t *testing.T) {
			got := r.apply("?dry_run=true", want[0])
			if s := sums(got); !strings.HasSuffix(s, "refused "+want[1]+"\n") {
				t.Errorf("got %s, want %s", s, want[1])
			}
		})
	}
	// a disk goes when that is said, and only of a VM at rest
	lost := strings.Replace(on, `,{"size_bytes":"32MiB"}`, "", 1)
	r.applied("vm web: refused invalid_state\n", "?prune=true", lost)
	off := strings.Replace(lost, `"power":"on"`, `"power":"off"`, 1)
	r.settled(r.applied("vm web: change /spec/disks/1/size_bytes /spec/power more\n", "?prune=true", off)[0])
	r.settled(r.applied("vm web: change /spec/disks/1/size_bytes\n", "?prune=true", off)[0])

	// a document as it is read says the same
	v, _ = call[api.VM](r, "GET", "/api/v1/vms/web", nil)
	doc, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	r.applied("vm web: none \n", "", string(doc))
	n, _ := call[api.List[api.Node]](r, "GET", "/api/v1/nodes", nil)
	node := n.Items[0].Name
	cordon := `{"kind":"node","name":"` + node + `","spec":{"schedulable":false}}`
	img := `{"kind":"image","name":"tiny","spec":{"type":"kernel","files":[{"role":"kernel","sha256":"00"}]}}`
	r.applied("image tiny: refused image_mismatch /spec/files\nnode "+node+": not_tried \n", "", img, cordon)
	r.applied("node "+node+": change /spec/schedulable\n", "", cordon)
	r.applied("node "+node+": none \n", "", cordon)
	have, _ := call[api.Image](r, "GET", "/api/v1/images/tiny", nil)
	doc, err = json.Marshal(have)
	if err != nil {
		t.Fatal(err)
	}
	r.applied("image tiny: none \nimage absent: refused not_found\n", "?dry_run=true", string(doc), `{"kind":"image","name":"absent","spec":{}}`)
	one := r.audited("vm.update")
	if one != 1 {
		t.Errorf("%d records of one change of size and labels", one)
	}
}

func (r *running) audited(action string) int {
	r.t.Helper()
	n := 0
	for range 100 { // the chain is a second behind at most
		l, _ := call[api.List[api.AuditRecord]](r, "GET", "/api/v1/audit", nil)
		n = 0
		for _, a := range l.Items {
			if a.Action == action {
				n++
			}
		}
		if n > 0 {
			break
		}
		r.wait()
	}
	return n
}

// A dry run changes no row of any table.
func TestDryRunWritesNothing(t *testing.T) {
	db := storetest.New(t)
	r := start(t, db, t.TempDir())
	r.image("tiny")
	made := r.applied("vm web: create \n", "", webDoc) // it waits for a node, and stays as it is
	if made[0].Job == "" || made[0].ID == "" {
		t.Errorf("%+v", made)
	}
	r.audited("vm.create")
	before := everything(t, db)
	plan := r.applied("vm web: change /labels/tier\nvm db: create \nvm bad: refused not_found\nimage tiny: none \n", "?dry_run=true",
		strings.Replace(webDoc, `"tier":"web"`, `"tier":"db"`, 1), strings.Replace(webDoc, `"name":"web"`, `"name":"db"`, 1),
		strings.NewReplacer(`"name":"web"`, `"name":"bad"`, `"image":"tiny"`, `"image":"none"`).Replace(webDoc),
		`{"kind":"image","name":"tiny","spec":{"type":"kernel"}}`)
	if plan[0].ID != made[0].ID || plan[1].ID != "" || plan[1].Job != "" || plan[1].Before != nil || plan[1].After == nil {
		t.Errorf("%+v", plan)
	}
	// a request that would change something and has a document that is refused too
	r.applied("vm db: not_tried \nvm bad: refused not_found\n", "", strings.Replace(webDoc, `"name":"web"`, `"name":"db"`, 1),
		strings.NewReplacer(`"name":"web"`, `"name":"bad"`, `"image":"tiny"`, `"image":"none"`).Replace(webDoc))
	if diff := cmp.Diff(before, everything(t, db)); diff != "" {
		t.Errorf("rows before and after:\n%s", diff)
	}
}

// everything gives all rows of all tables but those that servers renew of
// themselves.
func everything(t *testing.T, db *storetest.DB) map[string]string {
	t.Helper()
	rows, err := db.App.Query(t.Context(), `SELECT tablename FROM pg_tables WHERE schemaname = 'public'`)
	if err != nil {
		t.Fatal(err)
	}
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, name)
	}
	out := map[string]string{}
	for _, name := range tables {
		if strings.HasPrefix(name, "goose") || name == "servers" || name == "leases" {
			continue
		}
		var all string
		if err := db.App.QueryRow(t.Context(), `SELECT coalesce(string_agg(x::text, E'\n' ORDER BY x::text), '') FROM `+name+` x`).Scan(&all); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = all
	}
	if len(out) < 10 || out["vms"] == "" {
		t.Fatalf("tables: %v", tables)
	}
	return out
}

// An image's document gives it its aliases, and takes none away that it does not
// speak of.
func TestApplyAliases(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	r.image("tiny")
	r.image("next")
	doc := func(name, spec string) string { return `{"kind":"image","name":"` + name + `","spec":{` + spec + `}}` }
	r.applied("image tiny: change /spec/aliases/0 /spec/aliases/1\n", "?dry_run=true", doc("tiny", `"aliases":["b","a"]`))
	r.applied("image tiny: change /spec/aliases/0 /spec/aliases/1\n", "", doc("tiny", `"aliases":["b","a"]`))
	r.applied("image tiny: none \n", "", doc("tiny", ``))
	r.applied("image tiny: none \n", "", doc("tiny", `"aliases":["a","b"]`))
	r.applied("image next: change /spec/aliases/0\n", "", doc("next", `"aliases":["a"]`)) // it is moved
	r.applied("image tiny: change /spec/aliases/0\n", "", doc("tiny", `"aliases":[]`))
	r.applied("image tiny: refused already_exists /spec/aliases\n", "", doc("tiny", `"aliases":["next"]`))
	r.applied("image tiny: refused invalid_name /spec/aliases\n", "", doc("tiny", `"aliases":["a/b"]`))
	r.applied("image a: refused conflict\n", "", doc("a", ``))
	if i, _ := call[api.Image](r, "GET", "/api/v1/images/a", nil); i.Name != "next" || len(i.Spec.Aliases) != 1 {
		t.Errorf("%+v", i)
	}
	// a VM keeps the image it is made from, by whichever name that is declared
	vm := strings.Replace(webDoc, `"image":"tiny"`, `"image":"a"`, 1)
	r.applied("vm web: create \n", "", vm)
	r.applied("vm web: none \n", "", vm)
	r.applied("vm web: none \n", "", strings.Replace(vm, `"image":"a"`, `"image":"next"`, 1))
	r.applied("vm web: refused field_not_writable /spec/image\n", "", webDoc)
}

// The hardware is part of a document: a board of no version is the one that the VM
// has, and one that is declared is what a VM elsewhere gets.
func TestApplyHardware(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	r.nodes(1)
	r.image("tiny")
	doc := func(spec string) string {
		return `{"kind":"vm","name":"web","spec":{"cpus":1,"memory_bytes":"128MiB","image":"tiny","power":"off"` + spec + `}}`
	}
	r.settled(r.applied("vm web: create \n", "", doc(`,"machine":{"type":"pc-q35-8.2"}`))[0])
	r.applied("vm web: none \n", "", doc(`,"machine":{"type":"q35","cpu":"x86-64-v2"}`))
	r.applied("vm web: none \n", "", doc(""))
	r.applied("vm web: change /spec/machine/cpu\n", "?dry_run=true", doc(`,"machine":{"cpu":"max"}`))
	r.applied("vm web: change /spec/machine/cpu\n", "", doc(`,"machine":{"cpu":"max"}`))
	r.applied("vm web: refused no_node_fits\n", "", doc(`,"machine":{"type":"pc-q35-99.0"}`))
	r.applied("vm web: refused invalid_field /spec/machine/type\n", "", doc(`,"machine":{"type":"pc"}`))
	v, _ := call[api.VM](r, "GET", "/api/v1/vms/web", nil)
	if v.Spec.Machine == nil || *v.Spec.Machine != (api.VMMachine{Type: "pc-q35-8.2", CPU: "max", Firmware: "bios"}) || *v.Document().Spec.Machine != *v.Spec.Machine {
		t.Errorf("%+v", v.Spec.Machine)
	}
}

// What cloud-init is told is part of a document: made with the VM, compared field by
// field, changed at rest, taken away by nothing in it, refused with its place.
func TestApplyCloudInit(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	r.nodes(1)
	r.image("tiny")
	doc := func(spec string) string {
		return `{"kind":"vm","name":"web","spec":{"cpus":1,"memory_bytes":"128MiB","image":"tiny","power":"off"` + spec + `}}`
	}
	made := r.applied("vm web: create \n", "", doc(`,"cloud_init":{"user_data":"#!/bin/one","hostname":"www"}`))
	r.settled(made[0])
	r.applied("vm web: none \n", "", doc(`,"cloud_init":{"hostname":"www","user_data":"#!/bin/one"}`))
	r.applied("vm web: none \n", "", doc(""))
	r.applied("vm web: change /spec/cloud_init/hostname /spec/cloud_init/user_data\n", "?dry_run=true", doc(`,"cloud_init":{"user_data":"#!/bin/two"}`))
	r.applied("vm web: change /spec/cloud_init/hostname /spec/cloud_init/user_data\n", "", doc(`,"cloud_init":{"user_data":"#!/bin/two"}`))
	r.applied("vm web: refused invalid_field /spec/cloud_init/hostname\n", "", doc(`,"cloud_init":{"hostname":"a b"}`))
	r.applied("vm web: refused invalid_field /spec/seed_image\n", "", doc(`,"seed_image":"tiny"`))
	r.applied("vm web: refused not_found\n", "?dry_run=true", doc(`,"cloud_init":{},"seed_image":"none-such"`))
	if v, _ := call[api.VM](r, "GET", "/api/v1/vms/web", nil); v.Spec.CloudInit == nil || v.Spec.CloudInit.UserData != "#!/bin/two" || v.Spec.CloudInit.Hostname != "" || v.Spec.SeedImage != "" {
		t.Errorf("%+v", v.Spec)
	}
	r.applied("vm web: change /spec/cloud_init/user_data\n", "", doc(`,"cloud_init":{}`))
	if v, _ := call[api.VM](r, "GET", "/api/v1/vms/web", nil); v.Spec.CloudInit != nil {
		t.Errorf("%+v", v.Spec.CloudInit)
	}
}
