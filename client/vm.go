package client

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/novacron/novacron/api"
)

// VMs are the virtual machines. A VM is named by its name or its id.
type VMs struct{ c *Client }

// Change is the answer to a change: the job that makes it, or, when nothing is
// left to do, the object as it is.
type Change struct {
	// Job makes the change; nil if it is already made.
	Job *api.Job `json:"job,omitempty"`
	// VM is the machine, if the answer holds it.
	VM *api.VM `json:"vm,omitempty"`
}

// UnmarshalJSON implements json.Unmarshaler: it tells the two answers apart.
func (ch *Change) UnmarshalJSON(data []byte) error {
	var both struct {
		Kind string   `json:"kind"`
		Job  *api.Job `json:"job"`
	}
	if err := json.Unmarshal(data, &both); err != nil {
		return err
	}
	switch both.Kind {
	case "vm":
		return json.Unmarshal(data, &ch.VM)
	case "job":
		return json.Unmarshal(data, &ch.Job)
	}
	if both.Job != nil && both.Job.ID != "" {
		ch.Job = both.Job
	}
	return nil
}

func vmPath(vm string) string { return "/vms/" + url.PathEscape(vm) }

// List gives one page.
func (s VMs) List(ctx context.Context, o ListOptions) (api.List[api.VM], error) {
	return list[api.VM](ctx, s.c, "/vms", o)
}

// All walks through every page.
func (s VMs) All(ctx context.Context, o ListOptions) iter.Seq2[api.VM, error] {
	return all[api.VM](ctx, s.c, "/vms", o)
}

// Get reads one.
func (s VMs) Get(ctx context.Context, vm string) (api.VM, error) {
	return get[api.VM](ctx, s.c, vmPath(vm))
}

// Create asks for a new VM.
func (s VMs) Create(ctx context.Context, req api.VMCreate) (Change, error) {
	return create[Change](ctx, s.c, "/vms", req)
}

// Patch changes a VM that is still at the revision.
func (s VMs) Patch(ctx context.Context, vm string, revision int64, patch api.VMPatch) (api.VM, error) {
	return amend[api.VM](ctx, s.c, vmPath(vm), &revision, patch)
}

// amend sends a PATCH; revision, unless nil, is what the object must still be at.
func amend[T any](ctx context.Context, c *Client, path string, revision *int64, change any) (T, error) {
	var out T
	body, err := json.Marshal(change)
	if err != nil {
		return out, fail(CodeInvalidConfig, "the change cannot be written as JSON", err)
	}
	r := request{method: http.MethodPatch, path: path, body: body, header: http.Header{}}
	if revision != nil {
		r.header.Set("If-Match", strconv.Quote(strconv.FormatInt(*revision, 10)))
	}
	err = c.do(ctx, r, &out)
	return out, err
}

// Clone makes a VM from a stopped one, on the same node.
func (s VMs) Clone(ctx context.Context, vm string, req api.VMClone) (Change, error) {
	return create[Change](ctx, s.c, vmPath(vm)+"/clone", req)
}

// AddDisk gives a stopped VM a further disk.
func (s VMs) AddDisk(ctx context.Context, vm string, disk api.VMDiskCreate) (Change, error) {
	return create[Change](ctx, s.c, vmPath(vm)+"/disks", disk)
}

// GrowDisk makes a disk larger, while the VM runs too. A disk is named by its id
// or its slot.
func (s VMs) GrowDisk(ctx context.Context, vm, disk string, size api.Bytes) (Change, error) {
	return amend[Change](ctx, s.c, diskPath(vm, disk), nil, api.VMDiskPatch{SizeBytes: size})
}

// LimitDisk bounds what the guest does on a disk, while it runs too; none of the
// limits that were before stays.
func (s VMs) LimitDisk(ctx context.Context, vm, disk string, l api.DiskLimits) (Change, error) {
	return amend[Change](ctx, s.c, diskPath(vm, disk), nil, api.VMDiskPatch{Limits: &l})
}

// RemoveDisk removes a disk of a stopped VM, and what is on it.
func (s VMs) RemoveDisk(ctx context.Context, vm, disk string) (Change, error) {
	return remove[Change](ctx, s.c, diskPath(vm, disk))
}

// AttachCD puts a CD, an image of type iso, into a VM's drive, while it runs too.
func (s VMs) AttachCD(ctx context.Context, vm, image string) (Change, error) {
	return s.act(ctx, vm, "cdrom/attach", api.VMCDROMAttach{Image: image})
}

// ReplaceCD puts a CD into a VM's drive in place of whatever is in it. With force it
// takes one that the guest has in use.
func (s VMs) ReplaceCD(ctx context.Context, vm, image string, force bool) (Change, error) {
	return s.act(ctx, vm, "cdrom/attach", api.VMCDROMAttach{Image: image, Replace: true, Force: force})
}

// EjectCD empties a VM's drive, while it runs too. With force it takes a CD that the
// guest has in use.
func (s VMs) EjectCD(ctx context.Context, vm string, force bool) (Change, error) {
	return s.act(ctx, vm, "cdrom/eject", api.VMCDROMEject{Force: force})
}

func diskPath(vm, disk string) string { return vmPath(vm) + "/disks/" + url.PathEscape(disk) }

// Guest reads what a VM's guest says of itself.
func (s VMs) Guest(ctx context.Context, vm string) (api.VMGuest, error) {
	return get[api.VMGuest](ctx, s.c, vmPath(vm)+"/guest")
}

// Exec runs a program in a VM's guest and waits for its end. It is not tried again by
// itself: nobody could tell how often it was run.
func (s VMs) Exec(ctx context.Context, vm string, req api.VMExec) (api.VMExecResult, error) {
	var out api.VMExecResult
	body, err := json.Marshal(req)
	if err != nil {
		return out, fail(CodeInvalidConfig, "the request cannot be written as JSON", err)
	}
	err = s.c.do(ctx, request{method: http.MethodPost, path: vmPath(vm) + "/exec", body: body, limit: execTimeout}, &out)
	return out, err
}

// Freeze has a guest's file systems frozen for so many seconds, 10 when that is 0. It is
// not tried again by itself: they would be frozen already.
func (s VMs) Freeze(ctx context.Context, vm string, seconds int64) (api.VMFreezeResult, error) {
	var out api.VMFreezeResult
	var req api.VMFreeze
	if seconds != 0 {
		req.Seconds = &seconds
	}
	body, err := json.Marshal(req)
	if err != nil {
		return out, fail(CodeInvalidConfig, "the request cannot be written as JSON", err)
	}
	err = s.c.do(ctx, request{method: http.MethodPost, path: vmPath(vm) + "/freeze", body: body, limit: freezeTimeout}, &out)
	return out, err
}

// Thaw has them thawed before that; none that is frozen is no error.
func (s VMs) Thaw(ctx context.Context, vm string) error {
	return s.c.do(ctx, request{method: http.MethodPost, path: vmPath(vm) + "/thaw", limit: freezeTimeout}, &api.VMThawed{})
}

// freezeTimeout is longer than a guest may take to freeze.
const freezeTimeout = 90 * time.Second

// execTimeout is longer than any program in a guest may take.
const execTimeout = 11 * time.Minute

// Delete removes a VM and its disks.
func (s VMs) Delete(ctx context.Context, vm string) (Change, error) {
	return remove[Change](ctx, s.c, vmPath(vm))
}

// Start starts a VM.
func (s VMs) Start(ctx context.Context, vm string) (Change, error) {
	return s.act(ctx, vm, "start", nil)
}

// Stop shuts a VM down.
func (s VMs) Stop(ctx context.Context, vm string, how api.VMStop) (Change, error) {
	return s.act(ctx, vm, "stop", how)
}

// Restart shuts a VM down and starts it again.
func (s VMs) Restart(ctx context.Context, vm string, how api.VMStop) (Change, error) {
	return s.act(ctx, vm, "restart", how)
}

// Pause halts a VM's CPUs; its memory stays.
func (s VMs) Pause(ctx context.Context, vm string) (Change, error) {
	return s.act(ctx, vm, "pause", nil)
}

// Suspend saves a VM's memory on its node's disk and ends its process.
func (s VMs) Suspend(ctx context.Context, vm string) (Change, error) {
	return s.act(ctx, vm, "suspend", nil)
}

// Resume lets a paused or suspended VM go on.
func (s VMs) Resume(ctx context.Context, vm string) (Change, error) {
	return s.act(ctx, vm, "resume", nil)
}

func (s VMs) act(ctx context.Context, vm, verb string, how any) (Change, error) {
	return post[Change](ctx, s.c, vmPath(vm)+"/"+verb, nil, how)
}

// Logs reads what the guest wrote to its serial console. With follow the stream
// goes on until it is closed or ctx ends.
func (s VMs) Logs(ctx context.Context, vm string, follow bool) (io.ReadCloser, error) {
	q := url.Values{}
	if follow {
		q.Set("follow", "true")
	}
	return s.c.open(ctx, request{
		method: http.MethodGet, path: vmPath(vm) + "/log", query: q, safe: true,
		header: http.Header{"Accept": {"text/plain, application/problem+json"}},
	})
}
