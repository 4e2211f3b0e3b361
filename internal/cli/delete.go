package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/manifest"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func newDelete(a *app) *cobra.Command {
	var f fileFlags
	var w *waitFlags
	var yes bool
	cmd := leaf("delete -f FILE", "Delete the objects that documents name", names(), func(cmd *cobra.Command, _ []string) error {
		docs, err := f.read(a, cmd)
		if err != nil {
			return err
		}
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		d := deleting{app: a, cmd: cmd, c: c, w: w}
		there, err := d.find(cmd.Context(), docs)
		if err != nil {
			return err
		}
		if !yes && len(there) > 0 && !a.confirm(fmt.Sprintf("Delete %s and all disks?", strings.Join(labelsOfTargets(there), ", "))) {
			return errs.New(errs.Cancelled, "nothing was deleted")
		}
		ctx := cmd.Context()
		if w.timeout > 0 {
			var stop func()
			ctx, stop = context.WithTimeout(ctx, w.timeout)
			defer stop()
		}
		err = d.all(ctx, there)
		if p := a.printer(); p.Format.ForPrograms() {
			err = errors.Join(p.Document(api.Applied{Results: d.results}), err)
		}
		return err
	})
	cmd.Long = `Delete the virtual machines and images that documents name, in reverse order:
virtual machines with their disks first, then, once these are gone, images. What
is not there is fine. What else the documents say does not matter, but for an id:
another object of the same name is left alone, and ends it before the first
deletion. A node is removed with 'novacron node remove'.`
	cmd.Example = `  novacron delete -f web.yaml --wait`
	f.add(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask (a script is never asked)")
	w = a.addWait(cmd)
	return cmd
}

// deleting is one run of delete.
type deleting struct {
	*app
	cmd *cobra.Command
	c   *client.Client
	w   *waitFlags

	results []api.ApplyResult
}

// tell says what became of an object: absent, deleting or deleted.
func (d *deleting) tell(t target, action, job, words string) {
	d.results = append(d.results, api.ApplyResult{Kind: t.kind, Name: t.name, ID: t.id, Action: action, Job: job})
	if !d.printer().Format.ForPrograms() {
		fmt.Fprintf(d.out, "%s %s: %s\n", output.Clean(t.kind), output.Clean(t.name), output.Clean(words))
	}
}

// target is an object to delete.
type target struct{ kind, name, id string }

func labelsOfTargets(ts []target) []string {
	out := make([]string, len(ts))
	for i, t := range ts {
		out[i] = t.kind + " " + t.name
	}
	return out
}

// find looks for every object before the first is deleted.
func (d *deleting) find(ctx context.Context, docs []manifest.Document) ([]target, error) {
	var out []target
	for _, doc := range slices.Backward(docs) {
		meta, err := d.look(ctx, doc)
		switch {
		case client.CodeOf(err) == string(errs.NotFound):
			d.tell(target{doc.Kind, doc.Name, ""}, "absent", "", "is not there")
		case err != nil:
			return nil, err
		case doc.ID != "" && doc.ID != meta.ID:
			return nil, errs.New(errs.Conflict, "%s: %s %q is another one by now, with the id %s; nothing was deleted", doc.Place("/id"), doc.Kind, doc.Name, meta.ID)
		default:
			out = append(out, target{doc.Kind, doc.Name, meta.ID})
		}
	}
	return out, nil
}

func (d *deleting) look(ctx context.Context, doc manifest.Document) (api.Meta, error) {
	switch doc.Kind {
	case "vm":
		v, err := d.c.VMs.Get(ctx, doc.Name)
		if err == nil && v.Spec.Protected {
			err = errs.New(errs.Protected, "%s: vm %q is protected against deletion; nothing was deleted: 'novacron vm set %s --protect=false' takes the protection away", doc.Place("/spec/protected"), doc.Name, doc.Name)
		}
		return v.Meta, err
	case "image":
		i, err := d.c.Images.Get(ctx, doc.Name)
		return i.Meta, err
	default:
		return api.Meta{}, errs.New(errs.Unsupported, "%s: a %s is not deleted by its document; nothing was deleted", doc.Place("/kind"), doc.Kind)
	}
}

// all asks for each deletion, and waits for those of virtual machines before it
// comes to images, which they may be made from.
func (d *deleting) all(ctx context.Context, there []target) error {
	var vms, rest []accepted
	for _, t := range there {
		del := d.c.VMs.Delete
		if t.kind == "image" {
			del = d.c.Images.Delete
			for _, v := range vms {
				if err := d.ended(ctx, v); err != nil {
					return err
				}
			}
			vms = nil
		}
		ch, err := del(ctx, t.id)
		if client.CodeOf(err) == string(errs.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		one := accepted{t, ch}
		if t.kind == "vm" {
			vms = append(vms, one)
		} else {
			rest = append(rest, one)
		}
	}
	for _, one := range append(vms, rest...) {
		if err := d.settled(ctx, one); err != nil {
			return err
		}
	}
	return nil
}

// accepted is a deletion under way.
type accepted struct {
	target
	ch client.Change
}

func (d *deleting) ended(ctx context.Context, one accepted) error {
	if _, err := d.c.WaitChange(ctx, one.ch, nil); errors.Is(err, context.DeadlineExceeded) {
		return errs.New(errs.Timeout, "%s %s was not deleted within %s; its job goes on", one.kind, one.name, d.w.timeout).HeldBy(one.ch.Job.ID)
	} else if err != nil {
		return err
	}
	d.tell(one.target, "deleted", "", "deleted")
	return nil
}

func (d *deleting) settled(ctx context.Context, one accepted) error {
	if one.ch.Job == nil || d.waits(d.cmd, d.w) {
		return d.ended(ctx, one)
	}
	d.tell(one.target, "deleting", one.ch.Job.ID, "is being deleted (job "+one.ch.Job.ID+")")
	return nil
}
