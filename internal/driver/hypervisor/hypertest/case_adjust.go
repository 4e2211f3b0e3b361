package hypertest

import (
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func adjusts(h *hosts) {
	m := h.launch(Polite)
	h.ready(m.VM)
	adjust := func(r contract.Ref, a contract.Adjustment) error { return h.migrator().Adjust(h.ctx, r, a) }
	some := contract.Adjustment{Downtime: time.Second, Throttle: 50}
	h.wantCode(adjust(m.Ref, some), errs.InvalidState, "adjusting what is not sent")
	h.wantCode(adjust(contract.Ref{VM: m.VM, Epoch: 7}, some), errs.StaleEpoch, "adjusting another epoch")
	h.wantCode(adjust(m.Ref, contract.Adjustment{Throttle: contract.MaxThrottle + 1}), errs.OutOfRange, "a throttle of 100")
	h.wantCode(adjust(m.Ref, contract.Adjustment{Downtime: -1}), errs.OutOfRange, "a downtime below 0")
	t := h.depart(m)
	h.wantCode(adjust(m.Ref, some), errs.InvalidState, "adjusting what has only departed")
	var first, second, none error
	if _, err := h.send(h.ctx, t, atStage(contract.StageMemory, func() {
		first, second, none = adjust(m.Ref, some), adjust(m.Ref, contract.Adjustment{Throttle: 20}), adjust(m.Ref, contract.Adjustment{})
	})); err != nil {
		h.Fatal(err)
	}
	if first != nil || second != nil || none != nil {
		h.Errorf("adjusted: %v, %v, %v", first, second, none)
	}
	h.arrived(t)
	h.wantCode(adjust(m.Ref, some), errs.InvalidState, "adjusting what was sent")
	h.handOver(t)
	h.far.clean(t.to)
}

func samples(h *hosts) {
	d, ok := h.Driver().(contract.Sampler)
	if !ok {
		return
	}
	m := h.launch(Polite)
	h.ready(m.VM)
	if rate, err := d.Sample(h.ctx, m.Ref); err != nil || rate < 0 {
		h.Fatalf("sampled: %d, %v", rate, err)
	}
	_, err := d.Sample(h.ctx, contract.Ref{VM: m.VM, Epoch: 7})
	h.wantCode(err, errs.StaleEpoch, "sampling another epoch")
	t := h.depart(m)
	h.sent(t)
	_, err = d.Sample(h.ctx, m.Ref)
	h.wantCode(err, errs.InvalidState, "sampling what was sent")
	h.handOver(t)
	h.far.clean(t.to)
}
