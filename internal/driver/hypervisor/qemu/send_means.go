package qemu

import (
	"context"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
)

// capabilities are those of QEMU that a move needs: the guest is halted before its disks
// are let go, the target does not touch them before it is told, and the source learns
// from the target that all has come.
func capabilities(channels bool) map[string]bool {
	return map[string]bool{
		"pause-before-switchover": true, "late-block-activate": true, "return-path": true, "events": true,
		"multifd": channels, "auto-converge": false,
	}
}

// sendCapabilities are those of a source. Whether the guest may be slowed down QEMU wants to
// know before it begins: it may, always, and by how much is a matter of parameters.
func sendCapabilities(channels bool) map[string]bool {
	can := capabilities(channels)
	can["auto-converge"] = true
	return can
}

func noCapabilities() map[string]bool {
	all := capabilities(false)
	for name := range all {
		all[name] = false
	}
	return all
}

// parameters are those of a move.
func parameters(o contract.MoveOptions) object {
	rate := o.BytesPerSecond
	if rate == 0 {
		rate = saveRate
	}
	p := object{"max-bandwidth": rate, "multifd-channels": max(o.Channels, 2), "multifd-compression": "none"}
	if o.Compression != "" {
		p["multifd-compression"] = o.Compression
	}
	if o.Downtime > 0 {
		p["downtime-limit"] = o.Downtime.Milliseconds()
	}
	return p
}

// idleThrottle is the least share by which QEMU slows processors down, in percent: what it
// does to a guest that nobody wants slowed down.
const idleThrottle = 1

// sendParameters are those of a source.
func sendParameters(o contract.MoveOptions) object {
	p := parameters(o)
	p["throttle-trigger-threshold"], p["cpu-throttle-tailslow"] = 50, false
	if o.AutoConverge { // as QEMU does by itself
		return slowDown(p, 20, 10, contract.MaxThrottle)
	}
	return slowDown(p, idleThrottle, idleThrottle, idleThrottle)
}

// slowDown adds by how much processors are slowed down the first time that they change
// memory too fast, by how much more each time after that, and how far that goes.
func slowDown(p object, first, more, most int) object {
	p["cpu-throttle-initial"], p["cpu-throttle-increment"], p["max-cpu-throttle"] = first, more, most
	return p
}

// Adjust implements contract.Migrator.
func (d *Driver) Adjust(ctx context.Context, r contract.Ref, a contract.Adjustment) error {
	if err := a.Validate(); err != nil {
		return err
	}
	g, err := d.live(r)
	if err != nil {
		return err
	}
	if !g.sending() {
		return contract.ErrNotSending(r.VM)
	}
	p := object{}
	if a.Downtime > 0 {
		p["downtime-limit"] = max(1, a.Downtime.Milliseconds())
	}
	if a.Throttle > 0 { // the next step goes all the way
		slowDown(p, a.Throttle, contract.MaxThrottle, a.Throttle)
	}
	if len(p) == 0 {
		return nil
	}
	return g.tell(ctx, "migrate-set-parameters", p, nil)
}

// tellMigration sets how QEMU migrates.
func (g *guest) tellMigration(ctx context.Context, can map[string]bool, how object) error {
	list := []object{}
	for name, on := range can {
		list = append(list, object{"capability": name, "state": on})
	}
	if err := g.tell(ctx, "migrate-set-capabilities", object{"capabilities": list}, nil); err != nil {
		return err
	}
	return g.tell(ctx, "migrate-set-parameters", how, nil)
}
