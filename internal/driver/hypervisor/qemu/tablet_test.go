package qemu_test

import (
	"testing"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/hypertest"
	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
)

// A machine with a screen has a pointer that is where a viewer points, also
// after a suspend; one without has none.
func TestTablet(t *testing.T) {
	h := newHarness(t, nil)
	ctx := hypertest.Context(t)
	m, file := h.witness(t)
	m.Screen, m.Drive = true, true
	tablets := func(m contract.Machine) (n int) {
		t.Helper()
		h.adopt(t, func() {
			h.onMonitor(ctx, t, m, func(c *qmp.Client) {
				var mice []struct {
					Name     string `json:"name"`
					Absolute bool   `json:"absolute"`
				}
				if err := c.Execute(ctx, "query-mice", nil, &mice); err != nil {
					t.Fatal(err)
				}
				for _, one := range mice {
					if one.Absolute {
						n++
					}
				}
			})
		})
		return n
	}
	h.launch(t, m)
	h.readLog(t, m, "guest ready")
	if n := tablets(m); n != 1 {
		t.Errorf("%d tablets beside a screen", n)
	}
	h.suspend(t, m, file)
	m = next(m, file)
	h.launch(t, m)
	h.counts(t, m, 1)
	if n := tablets(m); n != 1 {
		t.Errorf("%d tablets after a suspend", n)
	}
	if _, err := h.driver.Kill(ctx, m.Ref); err != nil {
		t.Fatal(err)
	}
	m.Epoch++
	m.Incoming, m.Screen = "", false
	h.launch(t, m)
	h.readLog(t, m, "guest ready")
	if n := tablets(m); n != 0 {
		t.Errorf("%d tablets without a screen", n)
	}
}
