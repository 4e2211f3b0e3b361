package server

import (
	"context"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/vm"
)

func (s *Server) guestRoutes() []Route {
	return []Route{
		handle(Route{
			Method: "GET", Path: "/api/v1/vms/{vm}/guest", ID: "readVMGuest", Summary: "What a VM's guest says of itself: its agent, addresses, file systems",
			Need: auth.Need{Resource: auth.VM, Action: auth.Read},
		}, s.readGuest),
		handle(Route{
			Method: "POST", Path: "/api/v1/vms/{vm}/exec", ID: "execInVM", Summary: "Run a program in a VM's guest and wait for its end",
			Need: auth.Need{Resource: auth.VM, Action: auth.Run},
		}, s.execInGuest),
		handle(Route{
			Method: "POST", Path: "/api/v1/vms/{vm}/freeze", ID: "freezeVM", Summary: "Freeze the file systems in a VM's guest for a moment",
			Need: auth.Need{Resource: auth.VM, Action: auth.Execute},
		}, s.freezeGuest),
		handle(Route{
			Method: "POST", Path: "/api/v1/vms/{vm}/thaw", ID: "thawVM", Summary: "Thaw the file systems in a VM's guest",
			Need: auth.Need{Resource: auth.VM, Action: auth.Execute},
		}, s.thawGuest),
	}
}

func (s *Server) readGuest(ctx context.Context, r *Request, _ none) (reply[api.VMGuest], error) {
	ctx, cancel := context.WithTimeout(ctx, streamTimeout)
	defer cancel()
	g, err := s.control.Guest(ctx, s.agents, r.Arg("vm"))
	out := api.VMGuest{Agent: g.Agent, Version: g.Version, Interfaces: []api.GuestInterface{}, FileSystems: []api.GuestFileSystem{}}
	for _, i := range g.Interfaces {
		out.Interfaces = append(out.Interfaces, api.GuestInterface{Name: i.Name, MAC: i.MAC, Addresses: append([]string{}, i.Addresses...)})
	}
	for _, f := range g.FileSystems {
		out.FileSystems = append(out.FileSystems, api.GuestFileSystem{
			Path: f.Path, Type: f.Type, TotalBytes: api.Bytes(f.TotalBytes), UsedBytes: api.Bytes(f.UsedBytes),
		})
	}
	if m := g.Memory; m != nil {
		out.Memory = &api.GuestMemory{
			TotalBytes: api.Bytes(m.TotalBytes), FreeBytes: api.Bytes(m.FreeBytes),
			AvailableBytes: api.Bytes(m.AvailableBytes), CacheBytes: api.Bytes(m.CacheBytes),
		}
	}
	return reply[api.VMGuest]{Body: out}, err
}

func (s *Server) execInGuest(ctx context.Context, r *Request, b api.VMExec) (reply[api.VMExecResult], error) {
	p := vm.Program{Command: b.Command, Input: b.Input, Time: vm.ProgramTime}
	if b.TimeoutSeconds != nil {
		p.Time = seconds(*b.TimeoutSeconds)
	}
	r.park()
	ctx, end := s.while(ctx, r) // and no longer than the token is good
	defer end()
	ctx, cancel := context.WithTimeout(ctx, min(max(p.Time, time.Second), vm.MaxProgramTime)+streamTimeout)
	defer cancel()
	out, err := s.control.RunInGuest(ctx, s.agents, r.Caller, r.Arg("vm"), p)
	return reply[api.VMExecResult]{Body: api.VMExecResult{
		ExitCode: out.Code, Signal: out.Signal, Stdout: append([]byte{}, out.Output...), Stderr: append([]byte{}, out.Errors...), Truncated: out.Cut,
	}}, err
}

func (s *Server) freezeGuest(ctx context.Context, r *Request, b api.VMFreeze) (reply[api.VMFreezeResult], error) {
	length := vm.FreezeTime
	if b.Seconds != nil {
		length = seconds(*b.Seconds)
	}
	r.park()
	ctx, cancel := context.WithTimeout(ctx, vm.MaxFreeze+streamTimeout)
	defer cancel()
	out, err := s.control.Freeze(ctx, s.agents, r.Caller, r.Arg("vm"), length)
	return reply[api.VMFreezeResult]{Body: api.VMFreezeResult{FileSystems: out.FileSystems, Until: out.Until.UTC()}}, err
}

func (s *Server) thawGuest(ctx context.Context, r *Request, _ none) (reply[api.VMThawed], error) {
	r.park()
	ctx, cancel := context.WithTimeout(ctx, vm.MaxFreeze+streamTimeout)
	defer cancel()
	return reply[api.VMThawed]{}, s.control.Thaw(ctx, s.agents, r.Caller, r.Arg("vm"))
}
