package control_test

import (
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// What a guest says comes through, and a program is run in it: on record first, by its
// name, without its arguments.
func TestGuests(t *testing.T) {
	c := controltest.New(t, 1)
	make1(t, c, c.NewVM("a", true))
	g, err := c.Service.Guest(t.Context(), c, "a")
	if err != nil || g.Agent != "connected" || len(g.Interfaces) != 1 || len(g.FileSystems) != 1 || g.FileSystems[0].UsedBytes != 3<<30 ||
		g.Memory == nil || g.Memory.TotalBytes != 512<<20 || g.Memory.AvailableBytes != 256<<20 {
		t.Errorf("%+v %v", g, err)
	}
	run := func(command ...string) error {
		out, err := c.Service.RunInGuest(t.Context(), c, controltest.Admin(), "a", vm.Program{Command: command, Time: time.Minute})
		if err == nil && string(out.Output) != "secret word\n" {
			t.Errorf("%+v", out)
		}
		return err
	}
	if err := run("/bin/echo", "secret", "word"); err != nil {
		t.Fatal(err)
	}
	var rows, secrets int
	var detail string
	err = c.DB.Owner.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE detail::text LIKE '%secret%'), max(detail::text) FROM audit_log WHERE action = 'vm.exec'`).Scan(&rows, &secrets, &detail)
	if err != nil || rows != 1 || secrets != 0 || !strings.Contains(detail, "/bin/echo") {
		t.Errorf("%d records, %d with a secret: %s %v", rows, secrets, detail, err)
	}
	if err := run("/bin/none"); !errs.Is(err, errs.GuestAgent) {
		t.Errorf("a program that is not there: %v", err)
	}
	if err := run("a\x00b"); !errs.Is(err, errs.InvalidField) {
		t.Errorf("a NUL: %v", err)
	}
	request(t, c, "a", vm.Stop)
	if _, err := c.Service.Guest(t.Context(), c, "a"); !errs.Is(err, errs.InvalidState) && !errs.Is(err, errs.NotFound) {
		t.Errorf("of one that is stopped: %v", err)
	}
	if err := run("/bin/true"); !errs.Is(err, errs.InvalidState) && !errs.Is(err, errs.NotFound) {
		t.Errorf("in one that is stopped: %v", err)
	}
}

// A guest is frozen for a moment, on record, while nothing else holds its VM; that shows
// on the VM, and it is thawed when asked, or when it ends.
func TestFreezeAndThaw(t *testing.T) {
	c := controltest.New(t, 1)
	make1(t, c, c.NewVM("a", true))
	freeze := func(length time.Duration) error {
		_, err := c.Service.Freeze(t.Context(), c, controltest.Admin(), "a", length)
		return err
	}
	for _, length := range []time.Duration{0, time.Second - 1, 61 * time.Second, -time.Second} {
		if err := freeze(length); !errs.Is(err, errs.OutOfRange) {
			t.Errorf("for %v: %v", length, err)
		}
	}
	out, err := c.Service.Freeze(t.Context(), c, controltest.Admin(), "a", time.Minute)
	if err != nil || out.FileSystems != 1 || time.Until(out.Until) > time.Minute {
		t.Fatalf("%+v %v", out, err)
	}
	if err := freeze(time.Second); !errs.Is(err, errs.InvalidState) {
		t.Errorf("twice: %v", err)
	}
	if err := c.Service.Thaw(t.Context(), c, controltest.Admin(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := freeze(time.Minute); err != nil {
		t.Errorf("again: %v", err)
	}
	var frozen, thawed int
	err = c.DB.Owner.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE action = 'vm.freeze'), count(*) FILTER (WHERE action = 'vm.thaw') FROM audit_log`).Scan(&frozen, &thawed)
	if err != nil || frozen != 3 || thawed != 1 {
		t.Errorf("%d and %d records: %v", frozen, thawed, err)
	}
	request(t, c, "a", vm.Stop)
	if err := freeze(time.Second); !errs.Is(err, errs.InvalidState) || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("one that is stopped: %v", err)
	}
}
