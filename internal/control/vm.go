package control

import (
	"context"
	"strconv"
	"time"

	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// NewVM is a request for a VM.
type NewVM struct {
	vm.Spec
	// Image is its name or id.
	Image string
	Start bool
	// Node restricts placement; empty for any.
	Node string
}

// VMs gives a page of VMs, each with what it appears as.
func (s *Service) VMs(ctx context.Context, p store.Page) ([]vm.View, *store.Next, error) {
	// one judgement for the filter and for what is shown
	judged := s.judged()
	views, next, err := s.cfg.Store.VMListByState(ctx, s.cfg.Project, p, judged)
	reporting, held := setOf(judged.Reporting), setOf(judged.Held)
	for i := range views {
		if n := views[i].Node; n != nil {
			n.Reporting, n.Held = reporting[n.ID], judged.AllHeld || held[n.ID]
		}
	}
	return views, next, err
}

// VM gives one VM.
func (s *Service) VM(ctx context.Context, ref string) (vm.View, error) {
	v, err := s.cfg.Store.VMGet(ctx, s.cfg.Project, ref)
	s.judge(&v)
	return v, err
}

// judge fills in whether the VM's node reports, and whether it is held.
func (s *Service) judge(v *vm.View) {
	if v.Node != nil {
		v.Node.Reporting = s.cfg.Live.Reporting(v.Node.ID)
		v.Node.Held = s.holds.Held(v.Node.ID)
	}
}

// judged is what this server judges of nodes now.
func (s *Service) judged() store.Judged {
	j := s.holds.judged()
	j.Reporting = s.cfg.Live.AllReporting()
	return j
}

func setOf(ids []id.ID) map[id.ID]bool {
	set := make(map[id.ID]bool, len(ids))
	for _, i := range ids {
		set[i] = true
	}
	return set
}

// CreateVM records a VM and starts its creation.
func (s *Service) CreateVM(ctx context.Context, c Caller, n NewVM) (Accepted, error) {
	if err := s.mayCreate(ctx, &n); err != nil {
		return Accepted{}, err
	}
	return s.once(ctx, c, func(tx *store.Tx) (Accepted, error) {
		a, _, err := s.createVM(ctx, tx, c, n)
		return a, err
	})
}

// mayCreate checks what can be told before a transaction.
func (s *Service) mayCreate(ctx context.Context, n *NewVM) error {
	if err := n.Validate(); err != nil {
		return err
	}
	if n.Image == "" {
		return errs.New(errs.InvalidField, "a VM is made from an image: name one ('novacron image list')").
			At(errs.Field{Pointer: "/image", Message: "is required"})
	}
	if n.Node != "" {
		on, err := s.cfg.Store.NodeGet(ctx, n.Node)
		if err != nil {
			return err
		}
		n.Node = on.Name
	}
	return nil
}

func (s *Service) createVM(ctx context.Context, tx *store.Tx, c Caller, n NewVM) (Accepted, vm.View, error) {
	img, err := tx.ImageUse(ctx, s.cfg.Project, n.Image)
	if err != nil {
		return Accepted{}, vm.View{}, err
	}
	if err := bootable(img); err != nil {
		return Accepted{}, vm.View{}, err
	}
	if err := starts(n.Hardware.Type, img); err != nil {
		return Accepted{}, vm.View{}, err
	}
	v, err := s.newView(ctx, tx, n, img)
	if err != nil {
		return Accepted{}, v, err
	}
	job := id.New()
	if err := tx.VMInsert(ctx, v, job); err != nil {
		return Accepted{}, v, err
	}
	return Accepted{Job: &job, Object: v.Intent.ID}, v, s.begin(ctx, tx, c, v, workflow.NewJob{
		ID: job, Kind: vm.JobCreate, OpSeq: 1, Cancellable: true,
		Params: flows.CreateParams{Start: n.Start, Node: n.Node},
	})
}

// begin enqueues a job on a VM and writes the audit record that goes with it.
func (s *Service) begin(ctx context.Context, tx *store.Tx, c Caller, v vm.View, j workflow.NewJob) error {
	_, err := s.beginWith(ctx, tx, c, v, j, nil)
	return err
}

// beginWith is begin with particulars for the audit record. It gives the job where
// that has begun.
func (s *Service) beginWith(ctx context.Context, tx *store.Tx, c Caller, v vm.View, j workflow.NewJob, detail map[string]any) (*workflow.Birth, error) {
	if err := s.holds.On(v.Intent.NodeID); err != nil {
		return nil, err
	}
	j.ProjectID = &s.cfg.Project
	j.Target = workflow.Target{Kind: "vm", ID: v.Intent.ID, Name: v.Intent.Name}
	j.Seen = v
	birth, err := s.enqueue(ctx, tx, c, j)
	if err != nil {
		return nil, err
	}
	r := c.record(j.Kind, "vm", v.Intent.ID, v.Intent.Name)
	r.JobID, r.ProjectID, r.Detail = &j.ID, &s.cfg.Project, detail
	return birth, tx.AuditInsert(ctx, r)
}

// newView makes the VM's intent with fresh ids for everything it has.
func (s *Service) newView(ctx context.Context, tx *store.Tx, n NewVM, img image.Image) (vm.View, error) {
	v := vm.View{Intent: vm.Intent{
		ID: id.New(), ProjectID: s.cfg.Project, Name: n.Name, Labels: n.Labels,
		CPUs: n.CPUs, MemoryBytes: n.MemoryBytes, Hardware: n.Hardware.OrDefault(), ImageID: &img.ID, ImageName: img.Name, CloudInit: n.CloudInit.OrNil(),
		Policy: n.Policy.Normal(), Limits: n.Limits.Normal(),
	}}
	var err error
	if v.Intent.SeedImage, err = s.cd(ctx, tx, n.SeedImage, "/seed_image"); err != nil {
		return v, err
	}
	if v.Intent.CDROM, err = s.cd(ctx, tx, n.CDROM, "/cdrom"); err != nil {
		return v, err
	}
	disks := n.Disks
	base, fromImage := img.File(image.RoleDisk)
	if fromImage && len(disks) == 0 {
		disks = []vm.DiskSpec{{SizeBytes: base.VirtualBytes}}
	}
	for i, d := range disks {
		made := s.newVolume
		if fromImage && i == 0 {
			made = bootVolume(img)
		}
		vol, err := pooled(made)(ctx, tx, d, "/disks/"+strconv.Itoa(i))
		if err != nil {
			return v, err
		}
		vol.Slot, vol.Limits = i, d.Limits
		v.Volumes = append(v.Volumes, vol)
	}
	for i, c := range n.NICs {
		v.NICs = append(v.NICs, vm.NIC{ID: id.New(), Slot: i, Bridge: c.Bridge, Forwards: c.Forwards})
	}
	return v, s.giveMACs(ctx, tx, v.NICs)
}

// Stop says how to stop or restart a VM.
type Stop struct {
	Grace time.Duration
}

// Grace periods of stop and restart.
const (
	DefaultGrace = 60 * time.Second
	MaxGrace     = time.Hour
)

// AskVM carries out a request about a VM: it decides under the row's lock, takes
// the VM for the job, and enqueues it. Without a job, there was nothing to do.
func (s *Service) AskVM(ctx context.Context, c Caller, ref string, r vm.Request, stop Stop) (Accepted, error) {
	if stop.Grace < 0 || stop.Grace > MaxGrace {
		return Accepted{}, errs.New(errs.OutOfRange, "the grace period is 0 to %v", MaxGrace).
			At(errs.Field{Pointer: "/grace_seconds", Message: "is out of range", Limit: "0 to 3600"})
	}
	var out Accepted
	err := s.change(ctx, func(tx *store.Tx) error {
		v, err := tx.VMGet(ctx, s.cfg.Project, ref)
		if err != nil {
			return err
		}
		if err := c.believes(v); err != nil {
			return err
		}
		s.judge(&v)
		out, err = s.ask(ctx, tx, c, v, r, stop)
		return err
	})
	return out, err
}

func (s *Service) ask(ctx context.Context, tx *store.Tx, c Caller, v vm.View, r vm.Request, stop Stop) (Accepted, error) {
	out := Accepted{Object: v.Intent.ID}
	if err := s.holds.On(v.Intent.NodeID); err != nil {
		return out, err // before any decision: what the database has of the VM may not be true
	}
	action, err := vm.Decide(v, r)
	if err != nil {
		return out, err
	}
	switch action {
	case vm.DoNothing:
		return out, nil
	case vm.DoCancel:
		out.Job = &v.Job.ID
		rec := c.record("vm.delete", "vm", v.Intent.ID, v.Intent.Name)
		rec.JobID, rec.ProjectID = out.Job, &s.cfg.Project
		if err := tx.AuditInsert(ctx, rec); err != nil {
			return out, err
		}
		return out, workflow.Cancel(ctx, tx, v.Job.ID)
	case vm.DoJob:
	}
	if err := forget(ctx, tx, v, r); err != nil {
		return out, err
	}
	j := jobFor(v, r, stop)
	out.Job = &j.ID
	var birth *workflow.Birth
	if j.Kind == vm.JobStart {
		birth, err = s.beginStart(ctx, tx, c, v, j, nil)
	} else if j.OpSeq, err = tx.VMHold(ctx, v.Intent, j.ID); err == nil {
		birth, err = s.beginWith(ctx, tx, c, v, j, nil)
	}
	out.Begun = birth.Job(tx.Now)
	return out, err
}

// jobFor makes the job that carries out a request.
func jobFor(v vm.View, r vm.Request, stop Stop) workflow.NewJob {
	j := workflow.NewJob{ID: id.New(), Kind: jobOf(v, r), Params: struct{}{}}
	if r == vm.Stop || r == vm.Restart {
		j.Params = flows.StopParams{GraceMS: stop.Grace.Milliseconds()}
	}
	j.Cancellable = j.Kind == vm.JobStart || r == vm.Stop || r == vm.Suspend
	return j
}

// beginStart takes a VM, whose row tx has locked and which no job holds, for a job that
// starts it. Where the head of the flow runs in tx, it is what takes it.
func (s *Service) beginStart(ctx context.Context, tx *store.Tx, c Caller, v vm.View, j workflow.NewJob, detail map[string]any) (*workflow.Birth, error) {
	j.OpSeq = v.Intent.OpSeq + 1
	birth, err := s.beginWith(ctx, tx, c, v, j, detail)
	if err != nil || birth.Headed() {
		return birth, err
	}
	held, err := tx.VMHold(ctx, v.Intent, j.ID)
	if err == nil && held != j.OpSeq {
		err = errs.New(errs.Internal, "VM %q changed under its lock: job %d of it, where %d was expected", v.Intent.Name, held, j.OpSeq)
	}
	return birth, err
}

// jobOf is the job of a request: what is suspended is resumed by a start.
func jobOf(v vm.View, r vm.Request) string {
	if r == vm.Resume && vm.Appear(v).State == vm.Suspended {
		return vm.JobStart
	}
	return "vm." + string(r)
}

// forget ends what a VM's restart policy had in mind: somebody decided whether it runs.
func forget(ctx context.Context, tx *store.Tx, v vm.View, r vm.Request) error {
	if v.Restarts == (vm.Restarts{}) || r != vm.Start && r != vm.Stop && r != vm.Restart {
		return nil
	}
	return tx.RestartsForget(ctx, v.Intent.ID)
}

// Incarnation is where a VM's process is, if anywhere.
type Incarnation struct {
	VM    id.ID
	Node  id.ID
	Epoch gen.OwnerEpoch
}

// Placed tells where a VM's console and log are.
func (s *Service) Placed(ctx context.Context, ref string) (Incarnation, error) {
	v, err := s.VM(ctx, ref)
	if err != nil {
		return Incarnation{}, err
	}
	if err := v.Intent.Unusable(); err != nil {
		return Incarnation{}, err
	}
	epoch := v.Intent.Epoch
	if v.Observed != nil {
		epoch = max(epoch, v.Observed.Epoch) // a database that is behind does not know the last one
	}
	if v.Intent.NodeID == nil || epoch == 0 {
		return Incarnation{}, errs.New(errs.InvalidState, "VM %q has never run: it is %s", v.Intent.Name, vm.Appear(v).State)
	}
	return Incarnation{VM: v.Intent.ID, Node: *v.Intent.NodeID, Epoch: epoch}, nil
}

// ConsoleOpened records that somebody attached to a console or a screen.
func (s *Service) ConsoleOpened(ctx context.Context, c Caller, ref, action string) {
	err := s.change(ctx, func(tx *store.Tx) error {
		v, err := tx.VMGet(ctx, s.cfg.Project, ref)
		if err != nil {
			return err
		}
		r := c.record(action, "vm", v.Intent.ID, v.Intent.Name)
		r.ProjectID = &s.cfg.Project
		return tx.AuditInsert(ctx, r)
	})
	if err != nil {
		s.cfg.Log.Error("an opened console cannot be recorded", "vm", ref, "principal", c.Name, "err", err)
	}
}
