package server

import (
	"context"
	"net/http"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/domain/auth"
)

func (s *Server) cdromRoutes() []Route {
	update := auth.Need{Resource: auth.VM, Action: auth.Update}
	return []Route{
		handle(Route{Method: "POST", Path: "/api/v1/vms/{vm}/cdrom/attach", ID: "attachVMCDROM", Summary: "Put a CD into a VM's drive, while the VM runs too", Need: update, Status: http.StatusAccepted, Query: []Param{waitParam}}, s.attachCD),
		handle(Route{Method: "POST", Path: "/api/v1/vms/{vm}/cdrom/eject", ID: "ejectVMCDROM", Summary: "Take the CD out of a VM's drive, while the VM runs too", Need: update, Status: http.StatusAccepted, Query: []Param{waitParam}}, s.ejectCD),
	}
}

func (s *Server) attachCD(ctx context.Context, r *Request, b api.VMCDROMAttach) (reply[api.Accepted], error) {
	if err := storables(map[string]string{"/image": b.Image}); err != nil {
		return reply[api.Accepted]{}, err
	}
	return s.onDisk(ctx, r, func() (control.Accepted, error) {
		return s.control.AttachCD(ctx, r.Caller, r.Arg("vm"), control.AttachCD(b))
	})
}

func (s *Server) ejectCD(ctx context.Context, r *Request, b api.VMCDROMEject) (reply[api.Accepted], error) {
	return s.onDisk(ctx, r, func() (control.Accepted, error) {
		return s.control.EjectCD(ctx, r.Caller, r.Arg("vm"), b.Force)
	})
}
