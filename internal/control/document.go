package control

import (
	"context"
	"errors"
	"strings"

	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Document is one object as somebody declares it. Exactly one of VM, Image and
// Node is not nil.
type Document struct {
	Kind, Name string
	// ID and Revision, unless empty and nil, are of the object that the document was
	// read from: it must be that one, unchanged.
	ID       string
	Revision *int64
	VM       *vm.Want
	Image    *image.Want
	Node     *node.Want
}

// Action is what becomes of an object.
type Action string

// The actions.
const (
	ActionCreate Action = "create"
	ActionChange Action = "change"
	ActionNone   Action = "none"
)

// Applied is what a declaration comes to.
type Applied struct {
	Action Action
	// Before and After are a vm.View, image.Image or node.Node; Before is nil for
	// what does not exist yet.
	Before, After any
	// Object is the id of what exists, or of what was made.
	Object *id.ID
	// Job makes the change; nil when it is made.
	Job *id.ID
	// More: this was the first of several changes. The next can be made when the job
	// has ended: apply the document again.
	More bool
}

// ApplyOptions say how to apply.
type ApplyOptions struct {
	// DryRun makes no change, and judges all of what would be made.
	DryRun bool
	// Prune removes the disks that a VM's document does not declare.
	Prune bool
}

// errDry ends the transaction of a dry run: nothing of it happened.
var errDry = errors.New("this was a dry run")

// Apply brings one object to what its document declares: it makes what is
// missing, changes what differs, and leaves alone what is equal. One call makes
// one change, by the use-case that makes it for any other request; what needs
// several is applied until nothing is left. Who may not is refused here, object
// by object.
//
// A dry run goes the same way in a transaction that is rolled back. It looks at
// further changes as if those before them were made.
func (s *Service) Apply(ctx context.Context, c Caller, d Document, o ApplyOptions) (Applied, error) {
	var out Applied
	if err := id.CheckName("/name", d.Name); err != nil {
		return out, err
	}
	act := s.applier(d)
	run := s.change
	if o.DryRun {
		run = s.cfg.Store.InTx
	}
	err := run(ctx, func(tx *store.Tx) error {
		var err error
		out, err = act.apply(ctx, tx, c, o)
		if err == nil && o.DryRun {
			err = errDry
		}
		return err
	})
	switch {
	case errors.Is(err, errDry):
		out.Job = nil // it never was, as what would be created
		if out.Action == ActionCreate {
			out.Object = nil
		}
		return out, nil
	case errs.Is(err, errs.Forbidden):
		s.Deny(context.WithoutCancel(ctx), c, "apply", d.Kind+" "+d.Name, nil)
	case err == nil && d.Node != nil && out.Action == ActionChange:
		s.roomMade()
	}
	return out, err
}

// applier applies documents of one kind.
type applier interface {
	apply(ctx context.Context, tx *store.Tx, c Caller, o ApplyOptions) (Applied, error)
}

func (s *Service) applier(d Document) applier {
	switch {
	case d.VM != nil:
		return &vmApplier{s, d}
	case d.Image != nil:
		return imageApplier{s, d}
	default:
		return nodeApplier{s, d}
	}
}

// is refuses a document of another object than the one that has its name now, and
// one that was made of an older state.
func (d Document) is(found id.ID, revision int64) error {
	if d.ID != "" && d.ID != found.String() {
		return errs.New(errs.Conflict, "the document is of another %s %q, which is gone: the one there is has the id %s; leave out id and revision to apply it anyway", d.Kind, d.Name, found).
			At(errs.Field{Pointer: "/id", Message: "is another one's", Got: d.ID})
	}
	if d.Revision != nil && *d.Revision != revision {
		return errs.New(errs.RevisionMismatch, "%s %q is at revision %d: somebody changed it since the document was read; read it again, or leave out the revision to apply it anyway", d.Kind, d.Name, revision).
			At(errs.Field{Pointer: "/revision", Message: "is not the current one"})
	}
	return nil
}

// gone refuses to make anew what a document remembers.
func (d Document) gone() error {
	if d.ID == "" && d.Revision == nil {
		return nil
	}
	return errs.New(errs.Conflict, "%s %q, which the document was read from, is gone; leave out id and revision to make another one", d.Kind, d.Name).
		At(errs.Field{Pointer: "/id", Message: "is gone", Got: d.ID})
}

// may refuses what the caller's role does not allow.
func (c Caller) may(n auth.Need) error {
	if auth.May(c.Role, n) {
		return nil
	}
	return errs.New(errs.Forbidden, "the role %s may not %s a %s", c.Role, n.Action, n.Resource)
}

// within makes the pointers of an error those of a document, whose part at names.
func within(err error, at string) error {
	if err == nil {
		return nil
	}
	e := errs.As(err)
	for i, f := range e.Fields {
		switch root, _, _ := strings.Cut(strings.TrimPrefix(f.Pointer, "/"), "/"); root {
		case "kind", "id", "name", "labels", "revision", "spec":
		case "alias":
			e.Fields[i].Pointer = "/spec" + at
		case "disks":
			e.Fields[i].Pointer = "/spec" + f.Pointer
		default:
			e.Fields[i].Pointer = "/spec" + at + f.Pointer
		}
	}
	return err
}

// nodeApplier applies what an operator decides of a node.
type nodeApplier struct {
	s *Service
	d Document
}

func (a nodeApplier) apply(ctx context.Context, tx *store.Tx, c Caller, _ ApplyOptions) (Applied, error) {
	if err := c.may(auth.Need{Resource: auth.NodeRes, Action: auth.Update}); err != nil {
		return Applied{}, err
	}
	n, err := tx.NodeGet(ctx, a.d.Name)
	if errs.Is(err, errs.NotFound) {
		return Applied{}, errs.New(errs.NotFound, "there is no node %q, and a document does not make one: a host joins with a token ('novacron node token')", a.d.Name)
	}
	if err == nil {
		err = a.d.is(n.ID, int64(n.Revision))
	}
	if err != nil {
		return Applied{}, err
	}
	out := Applied{Action: ActionNone, Before: n, After: n, Object: &n.ID}
	if to := a.d.Node.State(n); to != n.State {
		out.Action = ActionChange
		err = setNode(ctx, tx, c, n, to, nil)
		n.State = to
	}
	if p := a.d.Node.Shutdown; p != nil && *p != n.Shutdown && err == nil {
		out.Action = ActionChange
		if err = p.Validate(); err == nil {
			err = setShutdown(ctx, tx, c, n, *p, nil)
		}
		n.Shutdown = *p
	}
	out.After = n
	return out, within(err, "")
}
