package control_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func protect(on bool) vm.Change { return vm.Change{Policy: vm.PolicyChange{Protected: &on}} }

// A protected VM is deleted by no way there is, until its protection is taken
// away; what was refused has changed nothing.
func TestProtectedVM(t *testing.T) {
	c := controltest.New(t, 1)
	n := c.NewVM("a", true)
	n.Policy.Protected = true
	make1(t, c, n)
	v, err := c.Service.VM(t.Context(), "a")
	if err != nil || !v.Intent.Policy.Protected {
		t.Fatalf("%+v %v", v.Intent, err)
	}
	_, err = c.Service.AskVM(t.Context(), controltest.Admin(), "a", vm.Delete, control.Stop{})
	if !errs.Is(err, errs.Protected) || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("delete: %v", err)
	}
	request(t, c, "a", vm.Stop)
	if _, err := c.Service.RemoveDisk(t.Context(), controltest.Admin(), "a", "1"); !errs.Is(err, errs.Protected) {
		t.Errorf("remove a disk: %v", err)
	}
	doc := control.Document{Kind: "vm", Name: "a", VM: &vm.Want{Disks: &[]vm.WantDisk{{}}}}
	if _, err := c.Service.Apply(t.Context(), controltest.Admin(), doc, control.ApplyOptions{Prune: true}); !errs.Is(err, errs.Protected) {
		t.Errorf("prune its disk: %v", err)
	}
	if v, err = c.Service.VM(t.Context(), "a"); err != nil || v.Job != nil || len(v.Volumes) != 2 || vm.Appear(v).State != vm.Stopped {
		t.Errorf("after refusals: %+v %v", v, err)
	}
	_, err = c.Service.CloneVM(t.Context(), controltest.Admin(), "a", "b", nil)
	drive(t, c, err)
	if v, err = c.Service.VM(t.Context(), "b"); err != nil || v.Intent.Policy.Protected {
		t.Errorf("its clone is protected: %v", err)
	}
	for _, name := range []string{"a", "b"} {
		if err := update(t, c, name, protect(false)); err != nil {
			t.Fatal(err)
		}
		request(t, c, name, vm.Delete)
	}
	clean(t, c)
	if left := views(t, c); len(left) != 0 {
		t.Errorf("%d are left", len(left))
	}
}

// Who protects a VM and is told so keeps it, however many delete it at once.
func TestProtectionRaced(t *testing.T) {
	c := controltest.New(t, 1)
	for round := range 12 {
		make1(t, c, c.NewVM("a", round%2 == 0))
		var wg sync.WaitGroup
		var protected, deleted error
		wg.Go(func() { protected = update(t, c, "a", protect(true)) })
		wg.Go(func() {
			_, deleted = c.Service.AskVM(t.Context(), controltest.Admin(), "a", vm.Delete, control.Stop{})
		})
		wg.Wait()
		if (protected == nil) == (deleted == nil) {
			t.Fatalf("protected: %v, deleted: %v", protected, deleted)
		}
		drive(t, c, nil)
		_, err := c.Service.VM(t.Context(), "a")
		if (protected == nil) != (err == nil) {
			t.Fatalf("protected: %v, read: %v", protected, err)
		}
		if err == nil {
			if err := update(t, c, "a", protect(false)); err != nil {
				t.Fatal(err)
			}
			request(t, c, "a", vm.Delete)
		}
	}
	clean(t, c)
}
