package server

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/near"
)

// maxDocuments of one request.
const maxDocuments = 500

// What becomes of a document, besides control's actions.
const (
	actionRefused  = "refused"
	actionNotTried = "not_tried"
)

func (s *Server) documentRoutes() []Route {
	return []Route{
		handle(Route{
			Method: "POST", Path: "/api/v1/apply", ID: "apply", Summary: "Bring objects to what documents declare of them",
			Need: auth.Need{Resource: auth.Document, Action: auth.Update}, Query: []Param{
				{"dry_run", "true to change nothing and tell what would be changed."},
				{"prune", "true to remove the disks of VMs that their documents do not declare, and what is on them."},
			},
		}, s.apply),
	}
}

// apply judges all documents before it changes anything. Each change is made by
// itself; the first that is refused after all ends it.
func (s *Server) apply(ctx context.Context, r *Request, b api.Apply) (reply[api.Applied], error) {
	docs, err := documents(b.Documents)
	if err != nil {
		return reply[api.Applied]{}, err
	}
	dry, err := boolParam(r, "dry_run")
	if err != nil {
		return reply[api.Applied]{}, err
	}
	prune, err := boolParam(r, "prune")
	if err != nil {
		return reply[api.Applied]{}, err
	}
	plan, refused := s.each(ctx, r, docs, control.ApplyOptions{DryRun: true, Prune: prune}, false)
	switch {
	case dry:
	case refused:
		for i := range plan {
			if plan[i].Error == nil {
				plan[i] = notTried(docs[i])
			}
		}
	default:
		plan, _ = s.each(ctx, r, docs, control.ApplyOptions{Prune: prune}, true)
	}
	return reply[api.Applied]{Body: api.Applied{Results: plan}}, ctx.Err()
}

func notTried(d control.Document) api.ApplyResult {
	return api.ApplyResult{Kind: d.Kind, Name: d.Name, Action: actionNotTried}
}

// each applies one document after the other.
func (s *Server) each(ctx context.Context, r *Request, docs []control.Document, o control.ApplyOptions, stop bool) ([]api.ApplyResult, bool) {
	out, refused := make([]api.ApplyResult, len(docs)), false
	for i, d := range docs {
		if refused && stop {
			out[i] = notTried(d)
			continue
		}
		a, err := s.control.Apply(ctx, r.Caller, d, o)
		if err != nil {
			refused = true
			out[i] = api.ApplyResult{Kind: d.Kind, Name: d.Name, Action: actionRefused, Error: problem(err, r.Caller.RequestID)}
			continue
		}
		out[i] = toResult(d, a)
	}
	return out, refused
}

func toResult(d control.Document, a control.Applied) api.ApplyResult {
	out := api.ApplyResult{
		Kind: d.Kind, Name: d.Name, ID: text(a.Object), Action: string(a.Action), Job: text(a.Job), More: a.More,
		Before: declared(a.Before), After: declared(a.After),
	}
	if a.Action == control.ActionChange {
		out.Fields = differing(out.Before, out.After)
	}
	return out
}

// declared gives the document that declares an object.
func declared(object any) json.RawMessage {
	var doc any
	switch o := object.(type) {
	case vm.View:
		doc = toVM(o).Document()
	case image.Image:
		doc = toImage(o).Document()
	case node.Node:
		doc = toNode(o).Document()
	default:
		return nil
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil
	}
	return b
}

// differing lists what is not the same in two documents, as JSON pointers.
func differing(before, after json.RawMessage) []string {
	was, is := leaves(before), leaves(after)
	var out []string
	for at, v := range is {
		if old, ok := was[at]; !ok || old != v {
			out = append(out, at)
		}
	}
	for at := range was {
		if _, ok := is[at]; !ok {
			out = append(out, at)
		}
	}
	slices.Sort(out)
	return out
}

func leaves(doc json.RawMessage) map[string]string {
	out := map[string]string{}
	var v any
	if json.Unmarshal(doc, &v) == nil {
		leavesOf(out, "", v)
	}
	return out
}

func leavesOf(out map[string]string, at string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			leavesOf(out, at+"/"+escapePointer(k), x)
		}
	case []any:
		for i, x := range v {
			leavesOf(out, at+"/"+strconv.Itoa(i), x)
		}
	default:
		b, err := json.Marshal(v)
		if err == nil {
			out[at] = string(b)
		}
	}
}

// documents reads what is declared. Every document that cannot be read is named,
// not just the first.
func documents(raw []json.RawMessage) ([]control.Document, error) {
	if len(raw) == 0 || len(raw) > maxDocuments {
		limit := "1 to " + strconv.Itoa(maxDocuments)
		return nil, errs.New(errs.OutOfRange, "one request takes %s documents", limit).
			At(errs.Field{Pointer: "/documents", Message: "must be " + limit, Limit: limit, Got: strconv.Itoa(len(raw))})
	}
	out := make([]control.Document, len(raw))
	seen := map[string]bool{}
	var refused *errs.Error
	for i, r := range raw {
		at := "/documents/" + strconv.Itoa(i)
		d, err := document1(r)
		if key := d.Kind + " " + d.Name; err == nil && seen[key] {
			err = errs.New(errs.InvalidField, "%s %q is declared twice", d.Kind, d.Name).At(errs.Field{Pointer: "/name", Message: "is declared twice", Got: d.Name})
		} else {
			seen[key] = true
		}
		out[i] = d
		if err != nil {
			refused = gather(refused, errs.As(err), at)
		}
	}
	if refused != nil {
		return nil, refused
	}
	return out, nil
}

// gather adds what is wrong with one document to what is wrong with others.
func gather(all, one *errs.Error, at string) *errs.Error {
	if all == nil {
		all = errs.New(one.Code, "%s: %s", at, one.Message)
	}
	if len(one.Fields) == 0 {
		one.At(errs.Field{Pointer: "", Message: one.Message})
	}
	for _, f := range one.Fields {
		if f.Pointer == "/" {
			f.Pointer = ""
		}
		f.Pointer = at + f.Pointer
		all.At(f)
	}
	return all
}

// kinds reads the documents of each kind.
var kinds = map[string]func([]byte) (control.Document, error){
	"vm": vmDocument, "image": imageDocument, "node": nodeDocument,
}

func document1(raw []byte) (control.Document, error) {
	var head struct {
		Kind json.RawMessage `json:"kind"`
	}
	var kind string
	if err := json.Unmarshal(raw, &head); err != nil || json.Unmarshal(head.Kind, &kind) != nil || kind == "" {
		return control.Document{}, errs.New(errs.InvalidField, "a document is an object with a kind, such as vm").
			At(errs.Field{Pointer: "/kind", Message: "is required", Limit: "vm, image, node"})
	}
	read, ok := kinds[kind]
	if !ok {
		hint := near.Hint(kind, maps.Keys(kinds))
		return control.Document{}, errs.New(errs.Unsupported, "documents of kind %q cannot be applied%s", errs.Clip(kind), hint).
			At(errs.Field{Pointer: "/kind", Message: "cannot be applied" + hint, Limit: "vm, image, node", Got: kind})
	}
	d, err := read(raw)
	if err == nil {
		err = id.CheckName("/name", d.Name)
	}
	return d, err
}

func documentMeta(m api.DocumentMeta) (control.Document, error) {
	d := control.Document{Kind: m.Kind, Name: m.Name, ID: m.ID, Revision: m.Revision}
	if m.Project != "" && m.Project != project {
		return d, errs.New(errs.NotFound, "there is no project %q", errs.Clip(m.Project)).At(errs.Field{Pointer: "/project", Message: "does not exist", Got: m.Project})
	}
	if m.Labels != nil && len(*m.Labels) > 0 && m.Kind != "vm" {
		return d, errs.New(errs.FieldNotWritable, "a %s has no labels", m.Kind).At(errs.Field{Pointer: "/labels", Message: "cannot be set here"})
	}
	return d, nil
}

func vmDocument(raw []byte) (control.Document, error) {
	var b api.VMDocument
	if err := decodeStrict(raw, &b); err != nil {
		return control.Document{}, err
	}
	d, err := documentMeta(b.DocumentMeta)
	w := &vm.Want{
		Labels: b.Labels, CPUs: b.Spec.CPUs, MemoryBytes: (*int64)(b.Spec.MemoryBytes), Hardware: fromMachine(b.Spec.Machine), Image: b.Spec.Image, CloudInit: fromCloudInit(b.Spec.CloudInit), SeedImage: b.Spec.SeedImage, CDROM: b.Spec.CDROM,
		Policy: vm.PolicyChange{Protected: b.Spec.Protected, Restart: (*vm.RestartPolicy)(b.Spec.RestartPolicy), Autostart: b.Spec.Autostart, StartOrder: b.Spec.StartOrder, StartDelaySeconds: b.Spec.StartDelaySeconds, Drain: (*vm.DrainPolicy)(b.Spec.DrainPolicy)},
		Limits: vm.LimitsChange{CPUWeight: b.Spec.CPUWeight, CPUCapPercent: b.Spec.CPUCapPercent},
	}
	d.VM = w
	if err == nil {
		w.PowerOn, err = powerOn(b.Spec.Power)
	}
	w.Disks, w.NICs = wantDisks(b.Spec.Disks), wantNICs(b.Spec.NICs)
	if err == nil {
		err = storableWant(w)
	}
	return d, err
}

func powerOn(p *string) (*bool, error) {
	if p == nil {
		return nil, nil
	}
	on := *p == "on"
	if !on && *p != "off" {
		return nil, errs.New(errs.InvalidField, "power is on or off").At(errs.Field{Pointer: "/spec/power", Message: "is neither on nor off", Limit: "on, off", Got: *p})
	}
	return &on, nil
}

func wantDisks(docs *[]api.VMDiskDocument) *[]vm.WantDisk {
	if docs == nil {
		return nil
	}
	disks := []vm.WantDisk{}
	for _, k := range *docs {
		disks = append(disks, vm.WantDisk{ID: k.ID, Slot: k.Slot, SizeBytes: int64(k.SizeBytes), Image: k.Image, Pool: k.Pool, Limits: fromDiskLimits(k.Limits)})
	}
	return &disks
}

func wantNICs(docs *[]api.VMNICDocument) *[]vm.WantNIC {
	if docs == nil {
		return nil
	}
	nics := []vm.WantNIC{}
	for _, n := range *docs {
		nic := vm.WantNIC{ID: n.ID, MAC: n.MAC, Bridge: n.Bridge}
		for _, f := range n.Forwards {
			nic.Forwards = append(nic.Forwards, vm.Forward(f))
		}
		nics = append(nics, nic)
	}
	return &nics
}

func storableWant(w *vm.Want) error {
	names := map[string]string{}
	if w.Image != nil {
		names["/spec/image"] = *w.Image
	}
	if w.SeedImage != nil {
		names["/spec/seed_image"] = *w.SeedImage
	}
	if w.CDROM != nil {
		names["/spec/cdrom"] = *w.CDROM
	}
	if w.Disks != nil {
		for i, k := range *w.Disks {
			names["/spec/disks/"+strconv.Itoa(i)+"/image"] = k.Image
			names["/spec/disks/"+strconv.Itoa(i)+"/pool"] = k.Pool
		}
	}
	return storables(names)
}

func imageDocument(raw []byte) (control.Document, error) {
	var b api.ImageDocument
	if err := decodeStrict(raw, &b); err != nil {
		return control.Document{}, err
	}
	d, err := documentMeta(b.DocumentMeta)
	d.Image = &image.Want{Kind: (*image.Kind)(b.Spec.Type), Cmdline: b.Spec.Cmdline, Aliases: b.Spec.Aliases}
	if b.Spec.Files != nil {
		files := []image.WantFile{}
		for _, f := range *b.Spec.Files {
			files = append(files, image.WantFile{Role: image.Role(f.Role), SHA256: f.SHA256})
		}
		d.Image.Files = &files
	}
	names := map[string]string{}
	if b.Spec.Aliases != nil {
		for i, a := range *b.Spec.Aliases {
			names["/spec/aliases/"+strconv.Itoa(i)] = a
		}
	}
	if err == nil {
		err = storables(names)
	}
	return d, err
}

func nodeDocument(raw []byte) (control.Document, error) {
	var b api.NodeDocument
	if err := decodeStrict(raw, &b); err != nil {
		return control.Document{}, err
	}
	d, err := documentMeta(b.DocumentMeta)
	d.Node = &node.Want{Schedulable: b.Spec.Schedulable, Shutdown: (*node.ShutdownPolicy)(b.Spec.ShutdownPolicy)}
	return d, err
}
