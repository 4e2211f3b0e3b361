package server

import (
	"context"
	"net/http"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func (s *Server) diskRoutes() []Route {
	update := auth.Need{Resource: auth.VM, Action: auth.Update}
	return []Route{
		handle(Route{Method: "POST", Path: "/api/v1/vms/{vm}/disks", ID: "addVMDisk", Summary: "Add a disk to a stopped VM", Need: update, Status: http.StatusAccepted, Query: []Param{waitParam}}, s.addDisk),
		handle(Route{Method: "PATCH", Path: "/api/v1/vms/{vm}/disks/{disk}", ID: "growVMDisk", Summary: "Make a disk larger, or limit what the guest does on it, while the VM runs too", Need: update, Status: http.StatusAccepted, Query: []Param{waitParam}}, s.growDisk),
		handle(Route{Method: "DELETE", Path: "/api/v1/vms/{vm}/disks/{disk}", ID: "removeVMDisk", Summary: "Remove a disk of a stopped VM, and what is on it", Need: update, Status: http.StatusAccepted, Query: []Param{waitParam}}, s.removeDisk),
	}
}

// onDisk carries out a change of a VM's disks, on what the caller believes the VM
// to be.
func (s *Server) onDisk(ctx context.Context, r *Request, change func() (control.Accepted, error)) (reply[api.Accepted], error) {
	revision, err := etag(r)
	if err != nil {
		return reply[api.Accepted]{}, err
	}
	r.Caller.Revision = revision
	return s.begin(ctx, r, change)
}

func (s *Server) addDisk(ctx context.Context, r *Request, b api.VMDiskCreate) (reply[api.Accepted], error) {
	if err := storables(map[string]string{"/image": b.Image, "/pool": b.Pool}); err != nil {
		return reply[api.Accepted]{}, err
	}
	return s.onDisk(ctx, r, func() (control.Accepted, error) {
		return s.control.AddDisk(ctx, r.Caller, r.Arg("vm"), vm.DiskSpec{SizeBytes: int64(b.SizeBytes), Image: b.Image, Pool: b.Pool, Limits: diskLimits(b.Limits)})
	})
}

func (s *Server) growDisk(ctx context.Context, r *Request, b api.VMDiskPatch) (reply[api.Accepted], error) {
	if b.Limits != nil && b.SizeBytes != 0 {
		return reply[api.Accepted]{}, errs.New(errs.InvalidField, "a disk's size and its limits change one after the other: they are two jobs").
			At(errs.Field{Pointer: "/limits", Message: "stands beside size_bytes"})
	}
	return s.onDisk(ctx, r, func() (control.Accepted, error) {
		if b.Limits != nil {
			return s.control.LimitDisk(ctx, r.Caller, r.Arg("vm"), r.Arg("disk"), diskLimits(b.Limits))
		}
		return s.control.GrowDisk(ctx, r.Caller, r.Arg("vm"), r.Arg("disk"), int64(b.SizeBytes))
	})
}

func (s *Server) removeDisk(ctx context.Context, r *Request, _ none) (reply[api.Accepted], error) {
	return s.onDisk(ctx, r, func() (control.Accepted, error) {
		return s.control.RemoveDisk(ctx, r.Caller, r.Arg("vm"), r.Arg("disk"))
	})
}
