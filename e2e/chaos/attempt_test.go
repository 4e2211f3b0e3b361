package chaos

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// attempt is one case: a migration, and what is done to it.
type attempt struct {
	b              *bench
	ctx            context.Context
	at             point
	fault          fault
	source, target *node
	job            string
	before         api.VM
	heard          heard
}

// settleTime is how long everything may take to be as it should, after the fault.
const settleTime = time.Minute

// try runs a case. Its error says what should not be.
func (b *bench) try(ctx context.Context, at point, f fault, to int) error {
	r := &attempt{b: b, ctx: ctx, at: at, fault: f}
	if err := r.prepare(to); err != nil {
		return fmt.Errorf("before it: %w", err)
	}
	trap := b.gate.set(at)
	defer b.gate.clear(trap)
	change, err := b.client.VMs.Migrate(ctx, vmName, api.VMMigrate{Node: r.target.Name, Reason: string(at) + "/" + f.name})
	if err != nil {
		return fmt.Errorf("the migration was refused: %w", err)
	}
	r.job = change.Job.ID
	if err := r.spring(trap); err != nil {
		return err
	}
	return r.judge()
}

// prepare sees that all is well, and who takes part.
func (r *attempt) prepare(to int) (err error) {
	if err := r.b.witness.goesOn(2, settleTime); err != nil {
		return err
	}
	if r.before, err = r.b.client.VMs.Get(r.ctx, vmName); err != nil {
		return err
	}
	for _, n := range r.b.nodes {
		if n.Name == r.before.Status.Node {
			r.source = n
		}
	}
	if r.source == nil {
		return fmt.Errorf("the VM is on node %q", r.before.Status.Node)
	}
	r.target = r.b.nodes[(r.source.n+1+to%(nodes-1))%nodes]
	r.b.witness.forget()
	r.heard = r.b.witness.heard()
	return wait(r.ctx, settleTime, func() error {
		n, err := r.b.client.Nodes.Get(r.ctx, r.target.Name)
		if err == nil && n.Status.State != "ready" {
			err = fmt.Errorf("node %s is %s", n.Name, n.Status.State)
		}
		return err
	})
}

// spring waits until the migration comes by the point, and does what is to be done there.
func (r *attempt) spring(trap *trap) error {
	late, free := clock.System{}.After(settleTime)
	defer free()
	var v *visit
	select {
	case v = <-trap.sprung:
	case <-late:
		job, err := r.b.client.Jobs.Get(r.ctx, r.job)
		return fmt.Errorf("the migration did not come by %s: its job is %s %+v (%w)", r.at, job.State, job.Error, err)
	}
	defer v.let()
	heal, err := r.fault.do(r)
	v.let()
	if err != nil || heal == nil {
		return err
	}
	_ = clock.System{}.Sleep(r.ctx, r.fault.hold)
	return heal()
}

// judge waits until all is settled, and looks for what must not be.
func (r *attempt) judge() error {
	var job api.Job
	err := wait(r.ctx, settleTime, func() (err error) {
		if err := r.guestIsRight(); err != nil {
			return err
		}
		if job, err = r.b.client.Jobs.Get(r.ctx, r.job); err == nil && !job.Ended() {
			err = fmt.Errorf("the job is %s (%s), step %s", job.State, job.WaitReason, stepOf(job))
		}
		return err
	})
	if errors.Is(err, errWrong) {
		return err
	}
	if err != nil {
		return fmt.Errorf("the job has no end: %w", err)
	}
	var v api.VM
	err = wait(r.ctx, settleTime, func() (err error) {
		v, err = r.runs()
		return err
	})
	return errors.Join(err, r.rowIsRight(job, v), r.witnessIsRight(), r.nothingIsLeft(v), r.auditIsRight())
}

func stepOf(j api.Job) string {
	for _, s := range slices.Backward(j.Steps) {
		if s.State != "pending" {
			return fmt.Sprintf("%+v", s)
		}
	}
	return ""
}

// runs sees that the guest runs, starting it where it ended by the fault.
func (r *attempt) runs() (api.VM, error) {
	v, err := r.b.client.VMs.Get(r.ctx, vmName)
	if err != nil {
		return v, err
	}
	switch {
	case v.Status.Job != "":
		return v, fmt.Errorf("the VM is held by job %s", v.Status.Job)
	case v.Status.State == "failed" || v.Status.State == "stopped":
		if !r.fault.fatal(r.at) {
			return v, fmt.Errorf("the guest is %s: %s", v.Status.State, v.Status.Reason)
		}
		_, err := r.b.client.VMs.Start(r.ctx, vmName)
		return v, errors.Join(fmt.Errorf("the guest was %s, and is started", v.Status.State), err)
	case v.Status.State != "running":
		return v, fmt.Errorf("the VM is %s: %s", v.Status.State, v.Status.Reason)
	}
	return v, nil
}

// rowIsRight holds the job's end against the row: I3, I5.
func (r *attempt) rowIsRight(job api.Job, v api.VM) error {
	moved := v.Status.Node == r.target.Name
	switch {
	case v.Status.Node != r.source.Name && !moved:
		return fmt.Errorf("the VM is on %s, and went from %s to %s", v.Status.Node, r.source.Name, r.target.Name)
	case job.State == "succeeded" && !moved:
		return fmt.Errorf("the job succeeded, and the VM is on %s", v.Status.Node)
	case job.State == "needs_attention":
		return fmt.Errorf("the job needs attention: %+v", job.Error)
	case moved && v.Status.OwnerEpoch <= r.before.Status.OwnerEpoch, v.Status.OwnerEpoch < r.before.Status.OwnerEpoch:
		return fmt.Errorf("the epoch was %d, and is %d", r.before.Status.OwnerEpoch, v.Status.OwnerEpoch)
	}
	return nil
}

// witnessIsRight hears what the guest says of it: I1, I2.
func (r *attempt) witnessIsRight() error {
	if err := r.b.witness.goesOn(5, settleTime/2); err != nil {
		return err
	}
	return r.guestIsRight()
}

// guestIsRight tells what the witness has said of it so far.
func (r *attempt) guestIsRight() error {
	now := r.b.witness.heard()
	if len(now.wrong) > 0 {
		return fmt.Errorf("%w: %s", errWrong, strings.Join(now.wrong, "; "))
	}
	if now.starts > r.heard.starts && !r.fault.fatal(r.at) {
		return fmt.Errorf("%w was started anew, %d times", errWrong, now.starts-r.heard.starts)
	}
	return nil
}

// nothingIsLeft looks at all nodes: I4.
func (r *attempt) nothingIsLeft(v api.VM) error {
	return wait(r.ctx, settleTime/2, func() error {
		for _, n := range r.b.nodes {
			has, want := len(n.guests()), 0
			if n.Name == v.Status.Node {
				want = 1
			}
			if has != want {
				return fmt.Errorf("node %s has %d processes of the guest, and is to have %d", n.Name, has, want)
			}
			if want == 1 {
				continue
			}
			if left := n.leftovers(v.ID); len(left) > 0 {
				return fmt.Errorf("node %s has still %v", n.Name, left)
			}
		}
		return nil
	})
}

// leftovers are what a node has of a VM.
func (n *node) leftovers(vm string) (left []string) {
	out, _ := exec.Command("find", n.DataDir, n.RunDir, n.RAMDir, "-name", "*"+vm+"*", "-not", "-path", "*/records/*").Output()
	left = strings.Fields(string(out))
	links, _ := exec.Command("ip", "-n", n.b.net.space(n.n), "-o", "link", "show", "type", "tun").Output()
	if len(links) > 0 {
		left = append(left, string(links))
	}
	return left
}

// auditIsRight has the audit log verified: I9.
func (r *attempt) auditIsRight() error {
	return wait(r.ctx, settleTime/2, func() error {
		v, err := r.b.client.Audit.Verify(r.ctx)
		if err == nil && !v.Intact {
			err = fmt.Errorf("the audit log does not verify: %+v", v)
		}
		return err
	})
}

// recovers tells whether the bench can be used after a case that failed: its guest runs,
// or can be made to.
func (b *bench) recovers() bool {
	ctx, cancel := context.WithTimeout(b.t.Context(), settleTime)
	defer cancel()
	return wait(ctx, settleTime, func() error {
		v, err := b.client.VMs.Get(ctx, vmName)
		if err == nil && v.Status.State != "running" {
			_, err = b.client.VMs.Start(ctx, vmName)
			err = errors.Join(fmt.Errorf("it is %s", v.Status.State), err)
		}
		return err
	}) == nil
}
