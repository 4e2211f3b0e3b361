package sim

import (
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Faults is what goes wrong, as data. The zero value is a host in good health.
type Faults struct {
	// Launch makes Launch fail.
	Launch *Failure `json:"launch,omitempty"`
	// HangLaunch makes Launch hang in phase starting until its context ends.
	HangLaunch bool `json:"hang_launch,omitempty"`
	// CrashAfterLaunch makes the guest's process die right after Launch succeeded.
	CrashAfterLaunch bool `json:"crash_after_launch,omitempty"`
	// IgnoreShutdown makes the guest deaf to the power button.
	IgnoreShutdown bool `json:"ignore_shutdown,omitempty"`
	// Suspend makes Suspend fail, with the guest going on.
	Suspend *Failure `json:"suspend,omitempty"`
	// Receive makes Receive fail.
	Receive *Failure `json:"receive,omitempty"`
	// Send makes Send fail at the stage SendAt, the first when empty; HangSend makes it
	// hang at a stage until it is broken off.
	Send     *Failure       `json:"send,omitempty"`
	SendAt   contract.Stage `json:"send_at,omitempty"`
	HangSend contract.Stage `json:"hang_send,omitempty"`
	// Memory, unless nil, is what takes time to send.
	Memory *Memory `json:"memory,omitempty"`
	// Agent makes every question to the guest's agent fail.
	Agent *Failure `json:"agent,omitempty"`
	// HoldMedium makes the guest keep the medium in its drive unless it is forced.
	HoldMedium bool `json:"hold_medium,omitempty"`
	// Kill makes Kill fail with the process still alive: "not proven".
	Kill *Failure `json:"kill,omitempty"`
}

// Failure is how a call fails.
type Failure struct {
	// Times is how often; 0 means always.
	Times int `json:"times,omitempty"`
	// Code of the error; errs.HostFailure when empty.
	Code errs.Code `json:"code,omitempty"`
	// Message for people; a general one when empty.
	Message string `json:"message,omitempty"`
}

// take gives the error of one call, or nil once the failure is used up.
func (f *Failure) take(what string) error {
	if f == nil || f.Times < 0 {
		return nil
	}
	if f.Times > 0 {
		if f.Times--; f.Times == 0 {
			f.Times = -1
		}
	}
	code, msg := f.Code, f.Message
	if code == "" {
		code = errs.HostFailure
	}
	if msg == "" {
		msg = what + " failed, as the simulated host was told to"
	}
	return errs.New(code, "%s", msg)
}

// SetFaults orders faults for one VM, or for every VM without an order of its
// own where vm is id.Nil. It replaces the earlier order and works at once, also
// on running guests; the zero Faults heal.
func (h *Host) SetFaults(vm id.ID, f Faults) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults[vm] = f.clone()
}

// ClearFaults removes all orders.
func (h *Host) ClearFaults() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.faults)
}

func (f Faults) clone() *Faults {
	for _, p := range []**Failure{&f.Launch, &f.Kill, &f.Suspend, &f.Agent, &f.Receive, &f.Send} {
		if *p != nil {
			c := **p
			*p = &c
		}
	}
	return &f
}

// faultsOf is called with h.mu held.
func (h *Host) faultsOf(vm id.ID) *Faults {
	if f, ok := h.faults[vm]; ok {
		return f
	}
	if f, ok := h.faults[id.Nil]; ok {
		return f
	}
	return &Faults{}
}
