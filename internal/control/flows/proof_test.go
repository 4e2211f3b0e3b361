package flows_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/drain"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow/prove"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// proof is how one flow is proved: what stands before its job, how the job is
// asked for, and what must hold after it ended.
type proof struct {
	// before brings a VM of the name into the state the flow starts from.
	before func(ctx context.Context, w *world, name string) error
	ask    func(ctx context.Context, w *world, name string) (control.Accepted, error)
	check  func(ctx context.Context, w *world, name string, end job.State) error
	// others: does it begin jobs of other kinds, which others carry out?
	others bool
}

// world is a cluster that proofs are run in, and an executor for what comes
// before a proof.
type world struct {
	*controltest.Cluster
	n    atomic.Int64
	name string
}

// proofs has one entry for each flow; TestEveryFlowIsProved sees to it.
var proofs = map[string]proof{
	vm.JobCreate: {
		ask: func(ctx context.Context, w *world, name string) (control.Accepted, error) {
			return w.Service.CreateVM(ctx, controltest.Admin(), w.NewVM(name, true))
		},
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			if end != job.Succeeded {
				return gone(ctx, w, name)
			}
			return errors.Join(appears(ctx, w, name, vm.Running), hasSeed(ctx, w, name))
		},
	},
	vm.JobStart: {
		before: created,
		ask:    ask(vm.Start),
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			return either(ctx, w, name, end, vm.Running, vm.Stopped, vm.Failed)
		},
	},
	vm.JobStop: {
		before: started,
		ask:    ask(vm.Stop),
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			// a deaf guest that was asked to shut down is stopping, job or no job
			return either(ctx, w, name, end, vm.Stopped, vm.Running, vm.Stopping, vm.Failed)
		},
	},
	vm.JobRestart: {
		before: started,
		ask:    ask(vm.Restart),
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			return either(ctx, w, name, end, vm.Running, vm.Failed, vm.Running)
		},
	},
	vm.JobPause: {
		before: started,
		ask:    ask(vm.Pause),
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			return either(ctx, w, name, end, vm.Paused, vm.Running, vm.Paused)
		},
	},
	vm.JobResume: {
		before: paused,
		ask:    ask(vm.Resume),
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			return either(ctx, w, name, end, vm.Running, vm.Paused, vm.Running)
		},
	},
	vm.JobSuspend: {
		before: started,
		ask:    ask(vm.Suspend),
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			// what was written before it was broken off stays so; it is one or the other
			if err := either(ctx, w, name, end, vm.Suspended, vm.Running, vm.Suspended); err != nil {
				return err
			}
			return keeps(ctx, w, name)
		},
	},
	vm.JobDelete: {
		before: started,
		ask:    ask(vm.Delete),
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			if end != job.Succeeded {
				return fmt.Errorf("a deletion ended as %s", end)
			}
			return gone(ctx, w, name)
		},
	},
	vm.JobMigrate: {
		before: created,
		ask:    migrates,
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			return errors.Join(moved(ctx, w, name, end), hasDisks(ctx, w, name, vm.Stopped, unit.GiB, 64*unit.MiB), hasSeed(ctx, w, name))
		},
	},
	vm.JobMigrateLive: {
		before: started,
		ask:    migrates,
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			return errors.Join(movedLive(ctx, w, name, end), hasDisks(ctx, w, name, vm.Running, unit.GiB, 64*unit.MiB), hasSeed(ctx, w, name))
		},
	},
	vm.JobMigrateWarm: {
		before: started,
		ask:    migratesWarm(migration.Options{}),
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			return errors.Join(movedLive(ctx, w, name, end), hasDisks(ctx, w, name, vm.Running, unit.GiB, 64*unit.MiB), hasSeed(ctx, w, name))
		},
	},
	vm.JobClone: {
		before: created,
		ask: func(ctx context.Context, w *world, name string) (control.Accepted, error) {
			return w.Service.CloneVM(ctx, controltest.Admin(), name, name+"-copy", nil)
		},
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			if err := hasDisks(ctx, w, name, vm.Stopped, unit.GiB, 64*unit.MiB); err != nil {
				return err
			}
			if end == job.Succeeded {
				return errors.Join(hasDisks(ctx, w, name+"-copy", vm.Stopped, unit.GiB, 64*unit.MiB), hasSeed(ctx, w, name+"-copy"))
			}
			return gone(ctx, w, name+"-copy")
		},
	},
	vm.JobCapture: {
		before: func(ctx context.Context, w *world, name string) error {
			return errors.Join(created(ctx, w, name), waiting(ctx, w, name))
		},
		ask: func(ctx context.Context, w *world, name string) (control.Accepted, error) {
			return w.Service.CaptureDisk(ctx, controltest.Admin(), name, name, "1")
		},
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			return errors.Join(hasDisks(ctx, w, name, vm.Stopped, unit.GiB, 64*unit.MiB), arrived(ctx, w, name, end, ""))
		},
	},
	vm.JobDiskAdd: {
		before: created,
		ask: func(ctx context.Context, w *world, name string) (control.Accepted, error) {
			return w.Service.AddDisk(ctx, controltest.Admin(), name, vm.DiskSpec{SizeBytes: 32 * unit.MiB})
		},
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			if end == job.Succeeded {
				return hasDisks(ctx, w, name, vm.Stopped, unit.GiB, 64*unit.MiB, 32*unit.MiB)
			}
			return hasDisks(ctx, w, name, vm.Stopped, unit.GiB, 64*unit.MiB)
		},
	},
	vm.JobDiskGrow: {
		before: started,
		ask: func(ctx context.Context, w *world, name string) (control.Accepted, error) {
			return w.Service.GrowDisk(ctx, controltest.Admin(), name, "1", 96*unit.MiB)
		},
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			if end == job.Succeeded {
				return hasDisks(ctx, w, name, vm.Running, unit.GiB, 96*unit.MiB)
			}
			return hasDisks(ctx, w, name, vm.Running, unit.GiB, 64*unit.MiB)
		},
	},
	vm.JobDiskRemove: {
		before: created,
		ask: func(ctx context.Context, w *world, name string) (control.Accepted, error) {
			return w.Service.RemoveDisk(ctx, controltest.Admin(), name, "1")
		},
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			if end == job.Succeeded {
				return hasDisks(ctx, w, name, vm.Stopped, unit.GiB)
			}
			return hasDisks(ctx, w, name, vm.Stopped, unit.GiB, 64*unit.MiB)
		},
	},
	vm.JobLimit: {
		before: started,
		ask: func(ctx context.Context, w *world, name string) (control.Accepted, error) {
			return w.Service.LimitDisk(ctx, controltest.Admin(), name, "1", vm.DiskLimits{IOPS: 77})
		},
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			want := vm.DiskLimits{}
			if end == job.Succeeded {
				want.IOPS = 77
			}
			return limited(ctx, w, name, want)
		},
	},
	vm.JobCDROM: {
		before: started,
		ask: func(ctx context.Context, w *world, name string) (control.Accepted, error) {
			if _, err := w.AddCD(ctx, "disc"); err != nil {
				return control.Accepted{}, err
			}
			return w.Service.AttachCD(ctx, controltest.Admin(), name, control.AttachCD{Image: "disc"})
		},
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			return hasCD(ctx, w, name, map[bool]string{true: "disc"}[end == job.Succeeded])
		},
	},
	drain.JobDrain:  {before: onN1, ask: drainsN1, check: drainedN1, others: true},
	drain.JobReturn: {before: offN1, ask: returnsN1, check: backOnN1, others: true},
	flows.JobImageConvert: {
		before: waiting,
		ask: func(ctx context.Context, w *world, name string) (control.Accepted, error) {
			i, err := w.Service.PutImageFile(ctx, controltest.Admin(), name, image.RoleDisk, "", bytes.NewReader(controltest.VHD(name)))
			if err != nil {
				return control.Accepted{}, err
			}
			// the image tells of it only while it goes on
			var j id.ID
			err = w.DB.App.QueryRow(ctx, "SELECT id FROM jobs WHERE kind = $1 AND target_id = $2 ORDER BY id DESC LIMIT 1", flows.JobImageConvert, i.ID).Scan(&j)
			return control.Accepted{Job: &j, Object: i.ID}, err
		},
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			return arrived(ctx, w, name, end, "vhd")
		},
	},
	flows.JobImageFetch: {
		before: waiting,
		ask: func(ctx context.Context, w *world, name string) (control.Accepted, error) {
			return w.Service.FetchImage(ctx, controltest.Admin(), name, flows.FetchParams{Role: image.RoleDisk, URL: w.Site(controltest.VHD(name))})
		},
		check: func(ctx context.Context, w *world, name string, end job.State) error {
			return arrived(ctx, w, name, end, "vhd")
		},
	},
	flows.JobImageDelete: {
		before: func(ctx context.Context, w *world, name string) error {
			_, err := w.Service.CreateImage(ctx, controltest.Admin(), name, "disk", "")
			return err
		},
		ask: func(ctx context.Context, w *world, name string) (control.Accepted, error) {
			return w.Service.DeleteImage(ctx, controltest.Admin(), name)
		},
		check: func(ctx context.Context, w *world, name string, _ job.State) error {
			if _, err := w.Service.Image(ctx, name); !errs.Is(err, errs.NotFound) {
				return fmt.Errorf("the image is still there: %w", err)
			}
			return nil
		},
	},
}

// waiting makes an image that waits for its disk.
func waiting(ctx context.Context, w *world, name string) error {
	_, err := w.Service.CreateImage(ctx, controltest.Admin(), name, image.Disk, "")
	return err
}

// arrived looks whether an image is ready, its disk made of one in another format;
// or, when its job did not succeed, waits for it as before.
func arrived(ctx context.Context, w *world, name string, end job.State, from string) error {
	i, err := w.Service.Image(ctx, name)
	if err != nil {
		return err
	}
	f, has := i.File(image.RoleDisk)
	switch {
	case i.JobID != nil:
		return fmt.Errorf("image %s is still held by job %s", name, i.JobID)
	case end != job.Succeeded && (has || i.State != image.Uploading):
		return fmt.Errorf("image %s is %s after a job that ended as %s: %+v", name, i.State, end, f)
	case end == job.Succeeded && (i.State != image.Ready || f.Format != "qcow2" || from != "" && (f.Source == nil || f.Source.Format != from)):
		return fmt.Errorf("image %s is %s: %+v", name, i.State, f)
	case end == job.Succeeded:
		c, err := w.Images.Open(f.SHA256)
		if err != nil {
			return err
		}
		return c.Close()
	}
	return nil
}

func TestEveryFlowIsProved(t *testing.T) {
	for _, f := range flows.All() {
		if _, ok := proofs[f.Name]; !ok {
			t.Errorf("workflow %s has no proof: add it to proofs", f.Name)
		}
	}
	if len(flows.All()) != len(proofs) {
		t.Errorf("%d workflows, %d proofs", len(flows.All()), len(proofs))
	}
}

func TestProofs(t *testing.T) {
	for _, f := range flows.All() {
		p, ok := proofs[f.Name]
		if !ok {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			prove.Prove(t, prove.Subject[flows.Env]{Flow: f, Reuse: true, World: func(tb testing.TB) prove.World[flows.Env] {
				c := controltest.New(tb, 2)
				if p.others {
					carryOut(tb, c, f.Name)
				}
				return newWorld(c, p)
			}})
		})
	}
}

func newWorld(c *controltest.Cluster, p proof) prove.World[flows.Env] {
	w := &world{Cluster: c}
	var settle func(context.Context) error
	if p.others {
		settle = w.quiet
	}
	return prove.World[flows.Env]{
		Settle: settle,
		Pool:   w.DB.App,
		Env:    w.Env,
		Start: func(ctx context.Context) (id.ID, error) {
			w.name = fmt.Sprintf("vm-%d", w.n.Add(1))
			if p.before != nil {
				if err := p.before(ctx, w, w.name); err != nil {
					return id.Nil, err
				}
			}
			a, err := p.ask(ctx, w, w.name)
			if err != nil {
				return id.Nil, err
			}
			return *a.Job, nil
		},
		Accept: w.Accept,
		Check: func(ctx context.Context, _ id.ID, end job.State) error {
			if err := p.check(ctx, w, w.name, end); err != nil {
				return err
			}
			return consistent(ctx, w)
		},
		Leftovers: w.Leftovers,
	}
}

func ask(r vm.Request) func(context.Context, *world, string) (control.Accepted, error) {
	return func(ctx context.Context, w *world, name string) (control.Accepted, error) {
		return w.Service.AskVM(ctx, controltest.Admin(), name, r, control.Stop{Grace: grace})
	}
}

// grace is short: the real guests of these proofs are deaf.
const grace = 50 * time.Millisecond

func created(ctx context.Context, w *world, name string) error {
	_, err := w.Service.CreateVM(ctx, controltest.Admin(), w.NewVM(name, false))
	return finish(ctx, w, err)
}

func started(ctx context.Context, w *world, name string) error {
	_, err := w.Service.CreateVM(ctx, controltest.Admin(), w.NewVM(name, true))
	return finish(ctx, w, err)
}

func paused(ctx context.Context, w *world, name string) error {
	if err := started(ctx, w, name); err != nil {
		return err
	}
	_, err := ask(vm.Pause)(ctx, w, name)
	return finish(ctx, w, err)
}

// finish drives the job that was just accepted, undisturbed.
func finish(ctx context.Context, w *world, err error) error {
	if err != nil {
		return err
	}
	return w.Drive(ctx)
}

func appears(ctx context.Context, w *world, name string, want ...vm.State) error {
	v, err := w.Store.VMGet(ctx, w.Project, name)
	if err != nil {
		return err
	}
	if v.Node != nil {
		v.Node.Reporting = true
	}
	a := vm.Appear(v)
	if !slices.Contains(want, a.State) {
		return fmt.Errorf("VM %s appears as %s (%s), want %v", name, a.State, a.Reason, want)
	}
	if v.Job != nil {
		return fmt.Errorf("VM %s is still held by job %s", name, v.Job.ID)
	}
	return nil
}

// either: one state when the job did what it was for, some others when not.
func either(ctx context.Context, w *world, name string, end job.State, done vm.State, undone ...vm.State) error {
	if end == job.Succeeded {
		return appears(ctx, w, name, done)
	}
	return appears(ctx, w, name, undone...)
}

// hasDisks compares a VM's disks, and what its host has of them, with sizes.
func hasDisks(ctx context.Context, w *world, name string, state vm.State, sizes ...int64) error {
	if err := appears(ctx, w, name, state); err != nil {
		return err
	}
	v, err := w.Store.VMGet(ctx, w.Project, name)
	if err != nil {
		return err
	}
	var recorded, there []int64
	for _, d := range v.Volumes {
		recorded = append(recorded, d.SizeBytes)
		for _, n := range w.Nodes {
			if n.ID == *v.Intent.NodeID {
				vol, err := n.Disk(ctx, d)
				if err != nil {
					return err
				}
				there = append(there, vol.SizeBytes)
			}
		}
	}
	if !slices.Equal(recorded, sizes) || !slices.Equal(there, sizes) {
		return fmt.Errorf("VM %s has disks of %d, its host of %d, want %d", name, recorded, there, sizes)
	}
	return nil
}

// hasSeed looks whether the VM's host has its seed.
func hasSeed(ctx context.Context, w *world, name string) error {
	v, err := w.Store.VMGet(ctx, w.Project, name)
	if err != nil {
		return err
	}
	for _, n := range w.Nodes {
		if n.ID != *v.Intent.NodeID {
			continue
		}
		s, err := n.Host.Volumes().Inspect(ctx, v.Intent.ID)
		if err != nil || !s.ReadOnly {
			return fmt.Errorf("the seed of VM %s is %+v, %w", name, s, err)
		}
	}
	return nil
}

func gone(ctx context.Context, w *world, name string) error {
	if _, err := w.Store.VMGet(ctx, w.Project, name); !errs.Is(err, errs.NotFound) {
		return fmt.Errorf("VM %s is still there: %w", name, err)
	}
	return nil
}

// consistent compares every VM's appearance with what its host executes.
func consistent(ctx context.Context, w *world) error {
	views, _, err := w.Service.VMs(ctx, store.Page{Limit: 1000})
	if err != nil {
		return err
	}
	running := w.Running()
	for _, v := range views {
		v.Node.Reporting = true
		executes := slices.Contains(running, v.Intent.ID.String())
		if a := vm.Appear(v); executes != (a.State == vm.Running || a.State == vm.Stopping) {
			return fmt.Errorf("VM %s appears as %s; does it execute? %v", v.Intent.Name, a.State, executes)
		}
	}
	return nil
}

// keeps looks whether a VM has its process or its memory, and not both, and counts as
// what it is.
func keeps(ctx context.Context, w *world, name string) error {
	v, err := w.Store.VMGet(ctx, w.Project, name)
	if err != nil {
		return err
	}
	running, saved := 0, 0
	for _, n := range w.Nodes {
		running += n.Host.Executing()[v.Intent.ID]
		saved += n.Saved(v.Intent.ID)
	}
	if running+saved != 1 || (running == 1) != v.Intent.PowerOn || (running == 1) != v.Intent.Reserved {
		return fmt.Errorf("VM %s runs %d times and is saved %d times: power on %v, reserved %v", name, running, saved, v.Intent.PowerOn, v.Intent.Reserved)
	}
	return nil
}
