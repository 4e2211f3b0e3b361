package vm

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// What is protected is not deleted, whatever state it is in and whatever is under
// way, and neither are its disks; nothing else is kept from anybody.
func TestProtected(t *testing.T) {
	for _, s := range States() {
		if s == Restoring {
			continue
		}
		for _, r := range Requests() {
			v := at(s)
			free, errFree := Decide(v, r)
			v.Intent.Policy.Protected = true
			a, err := Decide(v, r)
			if r == Delete || r == RemoveDisk {
				if !errs.Is(err, errs.Protected) || !strings.Contains(err.Error(), v.Intent.Name) || !strings.Contains(err.Error(), "protected: false") {
					t.Errorf("%s a %s VM: %q %v", r, s, a, err)
				}
				continue
			}
			if a != free || errs.CodeOf(err) != errs.CodeOf(errFree) {
				t.Errorf("%s a %s VM: %q %v, unprotected %q %v", r, s, a, err, free, errFree)
			}
		}
	}
	v := at(Provisioning)
	v.Job.Cancellable, v.Intent.Policy.Protected = true, true
	if _, err := Decide(v, Delete); !errs.Is(err, errs.Protected) {
		t.Errorf("while it is made: %v", err)
	}
}

// Protection comes too late for what is being deleted.
func TestProtectionTooLate(t *testing.T) {
	on := Change{Policy: PolicyChange{Protected: new(true)}}
	v := at(Running)
	if err := on.TooLate(v); err != nil {
		t.Error(err)
	}
	v.Job = &JobView{ID: id.New(), Kind: JobDelete}
	if err := on.TooLate(v); !errs.Is(err, errs.InvalidState) {
		t.Errorf("its deletion was accepted: %v", err)
	}
	if err := on.TooLate(at(Deleting)); !errs.Is(err, errs.InvalidState) {
		t.Errorf("its deletion is under way: %v", err)
	}
	if err := (Change{Policy: PolicyChange{Protected: new(false)}}).TooLate(v); err != nil {
		t.Errorf("to take it away does no harm: %v", err)
	}
}
