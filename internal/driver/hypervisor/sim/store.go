package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/serial"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// record is a guest as it is kept in the journal.
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
	// Limits of the machine.
	Limits contract.Limits `json:"limits,omitzero"`
	// Drive: is there one whose medium changes? Medium is what is in it.
	Drive  bool   `json:"drive,omitempty"`
	Medium string `json:"medium,omitempty"`
	// Fixed are the disks that it only reads.
	Fixed map[id.ID]bool `json:"fixed,omitempty"`
	// Send is its move to another host, and Landing what it waits for.
	Send    *send    `json:"send,omitempty"`
	Landing *landing `json:"landing,omitempty"`
	// Gone ends what was said of the VM before.
	Gone bool `json:"gone,omitempty"`
}

type recordPort struct {
	Protocol string `json:"protocol"`
	Addr     string `json:"addr"`
}

// journalName is the file of Options.Dir: a line per change, the last one of a VM
// counts. Files of their own for thousands of guests would cost a simulated data
// centre more than all else its hosts do.
const journalName = "guests.jsonl"

// journalSlack is how many lines too many there may be, beside four for each guest.
const journalSlack = 1000

// save keeps a guest before its change is told. A host that cannot write goes on
// in memory: a simulated host has no better answer, and its tests would notice.
func (h *Host) save(g *guest) {
	if h.journal != nil {
		h.write(recordOf(g))
	}
}

func recordOf(g *guest) record {
	r := record{
		VM: g.status.VM, Epoch: g.status.Epoch, Phase: g.status.Phase,
		Reason: g.status.Reason, Since: g.status.Since, Asked: g.asked, Disks: g.disks, Limits: g.limits,
		Drive: g.drive, Medium: g.medium, Fixed: g.fixed, Send: g.send, Landing: g.landing,
	}
	for _, p := range g.ports {
		r.Ports = append(r.Ports, recordPort{p.protocol, p.addr.String()})
	}
	return r
}

// write appends one line, by one call: a kill leaves all of it or none.
func (h *Host) write(r record) {
	b, err := json.Marshal(r)
	if err != nil {
		return
	}
	_, err = h.journal.Write(append(b, '\n'))
	h.lines++
	if err != nil || h.lines > journalSlack+4*len(h.guests) {
		_ = h.compact() // half a line goes, too; or after the next change
	}
}

// compact writes the journal anew, with a line for each guest.
func (h *Host) compact() error {
	name := filepath.Join(h.opt.Dir, journalName)
	fresh, err := os.OpenFile(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	var all []byte
	for _, g := range h.guests {
		b, err := json.Marshal(recordOf(g))
		if err != nil {
			return errors.Join(err, fresh.Close())
		}
		all = append(append(all, b...), '\n')
	}
	if _, err := fresh.Write(all); err != nil {
		return errors.Join(err, fresh.Close())
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return errors.Join(err, fresh.Close())
	}
	if h.journal != nil {
		_ = h.journal.Close()
	}
	h.journal, h.lines = fresh, len(h.guests)
	return nil
}

// forget drops the record of a VM. It is called with h.mu held.
func (h *Host) forget(v id.ID) {
	delete(h.guests, v)
	if h.journal != nil {
		h.write(record{VM: v, Gone: true})
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
	kept, err := h.read()
	if err != nil {
		return errs.New(errs.HostFailure, "the journal of the simulated host cannot be read").Because(err)
	}
	for _, r := range kept {
		h.adopt(r)
	}
	if err := h.compact(); err != nil {
		return errs.New(errs.HostFailure, "the journal of the simulated host cannot be written").Because(err)
	}
	return nil
}

// read gives what the journal says last of each VM.
func (h *Host) read() (map[id.ID]record, error) {
	b, err := os.ReadFile(filepath.Join(h.opt.Dir, journalName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	kept := map[id.ID]record{}
	for line := range bytes.Lines(b) {
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, err
		}
		if r.Gone {
			delete(kept, r.VM)
			continue
		}
		if !r.Phase.Valid() {
			return nil, fmt.Errorf("VM %s: no such phase", r.VM)
		}
		kept[r.VM] = r
	}
	return kept, nil
}

// adopt makes a guest of its record.
func (h *Host) adopt(r record) {
	g := &guest{
		status: contract.Status{Ref: contract.Ref{VM: r.VM, Epoch: r.Epoch}, Phase: r.Phase, Reason: r.Reason, Since: r.Since},
		asked:  r.Asked,
		disks:  r.Disks,
		limits: r.Limits,
		drive:  r.Drive,
		medium: r.Medium,
		fixed:  r.Fixed,
		send:   r.Send, landing: r.Landing, arrived: make(chan struct{}),
		serial: serial.NewRing(logKeep),
	}
	if r.Phase != vm.PhaseIncoming || r.Landing != nil && r.Landing.Arrived {
		close(g.arrived)
	}
	g.done, g.stop = context.WithCancel(h.life)
	h.guests[r.VM] = g
	if !r.Phase.OnNode() {
		h.free(g)
		return
	}
	for _, p := range r.Ports {
		if addr, err := netip.ParseAddrPort(p.Addr); err == nil {
			q := port{p.Protocol, addr}
			h.ports[q], g.ports = r.VM, append(g.ports, q)
		}
	}
}

// strayRecords lists the VMs of the journal that no guest explains.
func (h *Host) strayRecords() []string {
	if h.opt.Dir == "" {
		return nil
	}
	kept, err := h.read()
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for v := range kept {
		if _, known := h.guests[v]; !known {
			out = append(out, "record of VM "+v.String())
		}
	}
	return out
}
