package server

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
)

var waitParam = Param{"wait", "Wait for the job up to this long, such as 30s; at most 5m."}

func (s *Server) vmRoutes() []Route {
	rs := []Route{
		handle(Route{
			Method: "GET", Path: "/api/v1/vms", ID: "listVMs", Summary: "List VMs", Need: auth.Need{Resource: auth.VM, Action: auth.Read},
			Query: listParams(
				Param{"name", "With this name" + nameDoc}, Param{"state", "In this state; several are parted by commas."},
				Param{"node", "On the node of this name; several are parted by commas."},
				Param{"image", "Made from the image of this name; several are parted by commas."},
				Param{"label", "With this label, as key or key=value; of several, parted by commas, it has each."}),
		}, s.listVMs),
		handle(Route{Method: "POST", Path: "/api/v1/vms", ID: "createVM", Summary: "Create a VM", Need: auth.Need{Resource: auth.VM, Action: auth.Create}, Status: http.StatusAccepted, Query: []Param{waitParam}}, s.createVM),
		handle(Route{Method: "GET", Path: "/api/v1/vms/{vm}", ID: "getVM", Summary: "Read a VM", Need: auth.Need{Resource: auth.VM, Action: auth.Read}}, s.getVM),
		handle(Route{Method: "PATCH", Path: "/api/v1/vms/{vm}", ID: "updateVM", Summary: "Change a VM's name, labels, size, limits, policies or what cloud-init is told", Need: auth.Need{Resource: auth.VM, Action: auth.Update}}, s.updateVM),
		handle(Route{Method: "DELETE", Path: "/api/v1/vms/{vm}", ID: "deleteVM", Summary: "Delete a VM and its disks", Need: auth.Need{Resource: auth.VM, Action: auth.Delete}, Status: http.StatusAccepted, Query: []Param{waitParam}}, askVM[none](s, vm.Delete)),
		handle(Route{Method: "POST", Path: "/api/v1/vms/{vm}/stop", ID: "stopVM", Summary: "Stop a VM", Need: auth.Need{Resource: auth.VM, Action: auth.Execute}, Status: http.StatusAccepted, Query: []Param{waitParam}}, askVM[api.VMStop](s, vm.Stop)),
		handle(Route{Method: "POST", Path: "/api/v1/vms/{vm}/restart", ID: "restartVM", Summary: "Restart a VM", Need: auth.Need{Resource: auth.VM, Action: auth.Execute}, Status: http.StatusAccepted, Query: []Param{waitParam}}, askVM[api.VMStop](s, vm.Restart)),
	}
	rs = append(rs, handle(Route{
		Method: "POST", Path: "/api/v1/vms/{vm}/clone", ID: "cloneVM", Summary: "Make a VM from a stopped one, on the same node",
		Need: auth.Need{Resource: auth.VM, Action: auth.Create}, Status: http.StatusAccepted, Query: []Param{waitParam},
	}, s.cloneVM))
	for _, r := range []vm.Request{vm.Start, vm.Pause, vm.Resume, vm.Suspend} {
		verb := map[vm.Request]string{vm.Start: "Start", vm.Pause: "Pause", vm.Resume: "Resume", vm.Suspend: "Suspend"}[r]
		rs = append(rs, handle(Route{
			Method: "POST", Path: "/api/v1/vms/{vm}/" + string(r), ID: string(r) + "VM", Summary: verb + " a VM",
			Need: auth.Need{Resource: auth.VM, Action: auth.Execute}, Status: http.StatusAccepted, Query: []Param{waitParam},
		}, askVM[none](s, r)))
	}
	return rs
}

func (s *Server) listVMs(ctx context.Context, r *Request, _ none) (reply[api.List[api.VM]], error) {
	p, err := s.pages.read(r, "vms")
	if err != nil {
		return reply[api.List[api.VM]]{}, err
	}
	vms, next, err := s.control.VMs(ctx, p)
	return list(vms, s.pages.next(r, "vms", next), toVM), err
}

func (s *Server) getVM(ctx context.Context, r *Request, _ none) (reply[api.VM], error) {
	v, err := s.control.VM(ctx, r.Arg("vm"))
	return reply[api.VM]{Body: toVM(v), ETag: int64(v.Intent.Revision)}, err
}

func (s *Server) createVM(ctx context.Context, r *Request, b api.VMCreate) (reply[api.Accepted], error) {
	names := map[string]string{"/image": b.Image, "/node": b.Node, "/seed_image": b.SeedImage, "/cdrom": b.CDROM}
	for i, d := range b.Disks {
		names["/disks/"+strconv.Itoa(i)+"/image"], names["/disks/"+strconv.Itoa(i)+"/pool"] = d.Image, d.Pool
	}
	if err := storables(names); err != nil {
		return reply[api.Accepted]{}, err
	}
	n := control.NewVM{
		Spec: vm.Spec{
			Name: b.Name, Labels: b.Labels, CPUs: b.CPUs, MemoryBytes: int64(b.MemoryBytes), Hardware: fromMachine(b.Machine), CloudInit: fromCloudInit(b.CloudInit), SeedImage: b.SeedImage, CDROM: b.CDROM,
			Policy: vm.PolicyChange{Autostart: b.Autostart, StartDelaySeconds: &b.StartDelaySeconds}.Apply(
				vm.Policy{Protected: b.Protected, Restart: vm.RestartPolicy(b.RestartPolicy), StartOrder: b.StartOrder, Drain: vm.DrainPolicy(b.DrainPolicy)}),
			Limits: vm.Limits{CPUWeight: b.CPUWeight, CPUCapPercent: b.CPUCapPercent},
		},
		Image: b.Image, Start: b.Start, Node: b.Node,
	}
	for _, d := range b.Disks {
		n.Disks = append(n.Disks, vm.DiskSpec{SizeBytes: int64(d.SizeBytes), Image: d.Image, Pool: d.Pool, Limits: diskLimits(d.Limits)})
	}
	for _, c := range b.NICs {
		nic := vm.NICSpec{Bridge: c.Bridge}
		for _, f := range c.Forwards {
			nic.Forwards = append(nic.Forwards, vm.Forward(f))
		}
		n.NICs = append(n.NICs, nic)
	}
	return s.begin(ctx, r, func() (control.Accepted, error) { return s.control.CreateVM(ctx, r.Caller, n) })
}

// storables refuses names that nothing can have, by the field each stands in.
func storables(names map[string]string) error {
	for field, name := range names {
		if !storable(name) {
			return errs.New(errs.InvalidField, "%s is not a name", field).At(errs.Field{Pointer: field, Message: "is not a name", Got: name})
		}
	}
	return nil
}

func (s *Server) cloneVM(ctx context.Context, r *Request, b api.VMClone) (reply[api.Accepted], error) {
	revision, err := etag(r)
	if err != nil {
		return reply[api.Accepted]{}, err
	}
	r.Caller.Revision = revision
	var labels map[string]string
	if b.Labels != nil {
		labels = *b.Labels
	}
	return s.begin(ctx, r, func() (control.Accepted, error) {
		return s.control.CloneVM(ctx, r.Caller, r.Arg("vm"), b.Name, labels)
	})
}

func (s *Server) updateVM(ctx context.Context, r *Request, b api.VMPatch) (reply[api.VM], error) {
	revision, err := etag(r)
	if err != nil {
		return reply[api.VM]{}, err
	}
	r.Caller.Revision = revision
	if b.SeedImage != nil {
		if err := storables(map[string]string{"/seed_image": *b.SeedImage}); err != nil {
			return reply[api.VM]{}, err
		}
	}
	change := vm.Change{
		Name: b.Name, Labels: b.Labels, CPUs: b.CPUs, MemoryBytes: (*int64)(b.MemoryBytes), Hardware: fromMachine(b.Machine), CloudInit: fromCloudInit(b.CloudInit), SeedImage: b.SeedImage,
		Policy: vm.PolicyChange{Protected: b.Protected, Restart: (*vm.RestartPolicy)(b.RestartPolicy), Autostart: b.Autostart, StartOrder: b.StartOrder, StartDelaySeconds: b.StartDelaySeconds, Drain: (*vm.DrainPolicy)(b.DrainPolicy)},
		Limits: vm.LimitsChange{CPUWeight: b.CPUWeight, CPUCapPercent: b.CPUCapPercent},
	}
	which, err := s.control.UpdateVM(ctx, r.Caller, r.Arg("vm"), change)
	if err != nil {
		return reply[api.VM]{}, err
	}
	// by its id: its name may be another now
	v, err := s.control.VM(ctx, which.String())
	return reply[api.VM]{Body: toVM(v), ETag: int64(v.Intent.Revision)}, err
}

// askVM makes the handler of a request about a VM.
func askVM[B any](s *Server, req vm.Request) func(context.Context, *Request, B) (reply[api.Accepted], error) {
	return func(ctx context.Context, r *Request, body B) (reply[api.Accepted], error) {
		revision, err := etag(r)
		if err != nil {
			return reply[api.Accepted]{}, err
		}
		r.Caller.Revision = revision
		stop := control.Stop{Grace: control.DefaultGrace}
		if b, ok := any(body).(api.VMStop); ok {
			stop.Grace = grace(b)
		}
		return s.begin(ctx, r, func() (control.Accepted, error) {
			return s.control.AskVM(ctx, r.Caller, r.Arg("vm"), req, stop)
		})
	}
}

func grace(b api.VMStop) time.Duration {
	switch {
	case b.Force:
		return 0
	case b.GraceSeconds != nil:
		return seconds(int64(*b.GraceSeconds))
	default:
		return control.DefaultGrace
	}
}

// seconds makes a duration of what a request names; what is too long stays too
// long, instead of coming out as something else.
func seconds(n int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Second)
	return time.Duration(min(max(n, -most), most)) * time.Second
}

// maxWait bounds ?wait.
const maxWait = 5 * time.Minute

// begin makes a change that takes time and answers with its job, after waiting
// for it if asked. How long is read first: a request that is refused has changed
// nothing. Without a job there was nothing to do, which is 200 and no job.
func (s *Server) begin(ctx context.Context, r *Request, change func() (control.Accepted, error)) (reply[api.Accepted], error) {
	wait, err := waitOf(r)
	if err != nil {
		return reply[api.Accepted]{}, err
	}
	a, err := change()
	if err != nil {
		return reply[api.Accepted]{}, err
	}
	if a.Job == nil {
		return reply[api.Accepted]{Status: http.StatusOK}, nil
	}
	if wait == 0 && a.Begun != nil {
		return reply[api.Accepted]{Body: api.Accepted{Job: toJob(*a.Begun)}}, nil
	}
	if wait > 0 {
		if err := s.waitJob(ctx, r, *a.Job, wait); err != nil {
			return reply[api.Accepted]{}, err
		}
	}
	j, err := s.control.Job(ctx, *a.Job)
	return reply[api.Accepted]{Body: api.Accepted{Job: toJob(j)}}, err
}

func waitOf(r *Request) (time.Duration, error) {
	w := r.URL.Query().Get("wait")
	if w == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(w)
	if err != nil || d < 0 || d > maxWait {
		return 0, errs.New(errs.InvalidField, "wait is a duration up to %v, such as 30s", maxWait).
			At(errs.Field{Pointer: "wait", Message: "is not a duration in range", Limit: "0s to 5m", Got: w})
	}
	return d, nil
}
