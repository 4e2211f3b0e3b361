package sim

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/serial"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// record is a guest as it is kept in a file.
type record struct {
	VM     id.ID          `json:"vm"`
	Epoch  gen.OwnerEpoch `json:"epoch"`
	Phase  vm.Phase       `json:"phase"`
	Reason string         `json:"reason,omitempty"`
	Since  time.Time      `json:"since"`
	Asked  bool           `json:"asked,omitempty"`
	Ports  []recordPort   `json:"ports,omitempty"`
	// Disks are their sizes in bytes, 0 until grown.
	Disks map[id.ID]int64 `json:"disks,omitempty"`
}

type recordPort struct {
	Protocol string `json:"protocol"`
	Addr     string `json:"addr"`
}

func (h *Host) file(v id.ID) string { return filepath.Join(h.opt.Dir, v.String()+".json") }

// save keeps a guest before its change is told. A host that cannot write goes on
// in memory: a simulated host has no better answer, and its tests would notice.
func (h *Host) save(g *guest) {
	if h.opt.Dir == "" {
		return
	}
	r := record{
		VM: g.status.VM, Epoch: g.status.Epoch, Phase: g.status.Phase,
		Reason: g.status.Reason, Since: g.status.Since, Asked: g.asked, Disks: g.disks,
	}
	for _, p := range g.ports {
		r.Ports = append(r.Ports, recordPort{p.protocol, p.addr.String()})
	}
	b, err := json.Marshal(r)
	if err != nil {
		return
	}
	tmp := h.file(r.VM) + ".tmp"
	if os.WriteFile(tmp, b, 0o600) == nil {
		_ = os.Rename(tmp, h.file(r.VM))
	}
}

// forget drops the record of a VM. It is called with h.mu held.
func (h *Host) forget(v id.ID) {
	delete(h.guests, v)
	if h.opt.Dir != "" {
		_ = os.Remove(h.file(v))
	}
}

// load finds the guests left in Options.Dir.
func (h *Host) load() error {
	if h.opt.Dir == "" {
		return nil
	}
	if err := os.MkdirAll(h.opt.Dir, 0o700); err != nil {
		return errs.New(errs.HostFailure, "the folder of the simulated host cannot be made").Because(err)
	}
	entries, err := os.ReadDir(h.opt.Dir)
	if err != nil {
		return errs.New(errs.HostFailure, "the folder of the simulated host cannot be read").Because(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		if err := h.loadOne(filepath.Join(h.opt.Dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) loadOne(name string) error {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var r record
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && !r.Phase.Valid() {
		err = errors.New("no such phase")
	}
	if err != nil {
		return errs.New(errs.HostFailure, "the record %s of the simulated host cannot be read", filepath.Base(name)).Because(err)
	}
	g := &guest{
		status: contract.Status{Ref: contract.Ref{VM: r.VM, Epoch: r.Epoch}, Phase: r.Phase, Reason: r.Reason, Since: r.Since},
		asked:  r.Asked,
		disks:  r.Disks,
		serial: serial.NewRing(logKeep),
	}
	g.done, g.stop = context.WithCancel(h.life)
	h.guests[r.VM] = g
	if !r.Phase.OnNode() {
		h.free(g)
		return nil
	}
	for _, p := range r.Ports {
		if addr, err := netip.ParseAddrPort(p.Addr); err == nil {
			q := port{p.Protocol, addr}
			h.ports[q], g.ports = r.VM, append(g.ports, q)
		}
	}
	return nil
}

// strayFiles lists files of Options.Dir that no guest explains.
func (h *Host) strayFiles() []string {
	if h.opt.Dir == "" {
		return nil
	}
	entries, _ := os.ReadDir(h.opt.Dir)
	var out []string
	for _, e := range entries {
		v, err := id.Parse(strings.TrimSuffix(e.Name(), ".json"))
		if _, known := h.guests[v]; err != nil || !known {
			out = append(out, "file "+e.Name())
		}
	}
	return out
}
