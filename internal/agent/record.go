package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// record is what a node remembers of a VM.
type record struct {
	VM        id.ID          `json:"vm"`
	Epoch     gen.OwnerEpoch `json:"owner_epoch"` // highest seen: the fence
	Operation id.ID          `json:"operation"`
	OpSeq     int64          `json:"op_seq"`
	Attempt   int64          `json:"attempt"`
	// PowerOn: should it run, after a reboot too?
	PowerOn bool              `json:"power_on"`
	Machine *nodelink.Machine `json:"machine,omitempty"`
	// Boot is the host's boot id under which it was last launched.
	Boot string `json:"boot,omitempty"`
	// Bases are the images its volumes stand on, by volume.
	Bases map[id.ID]nodelink.ImageFile `json:"bases,omitempty"`
	// Volumes were made for it by this node; records of older agents do not tell.
	Volumes []id.ID `json:"volumes,omitempty"`
	// Pools are those of its volumes that are in a storage pool, each with the pool's id.
	Pools map[id.ID]id.ID `json:"pools,omitempty"`
	// Frozen: its guest's file systems are, or may be.
	Frozen *freeze `json:"frozen,omitempty"`
	// Variables are the kinds of firmware whose variables were made, or copied, for it here.
	Variables []string `json:"variables,omitempty"`
	// Anew: they were lost since, and its start made them anew.
	Anew *anew `json:"variables_anew,omitempty"`
	// Move is the last one that it made, running, between this node and another.
	Move *move `json:"move,omitempty"`
	// Erased: everything is gone but this fence.
	Erased bool `json:"erased,omitempty"`
}

// records keeps one file per VM in a folder.
type records struct {
	dir string
	// sync: survive a power loss? Simulated nodes have no power to lose.
	sync bool
}

const recordSuffix = ".json"

func openRecords(dir string, sync bool) (*records, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errs.New(errs.HostFailure, "the folder of VM records cannot be made").Because(err)
	}
	return &records{dir: dir, sync: sync}, nil
}

func (r *records) path(vm id.ID) string { return filepath.Join(r.dir, vm.String()+recordSuffix) }

// load reads all records. A damaged one is moved aside and named in the log: its
// VM is adopted from its process, if it has one, and never started by us.
func (r *records) load(log *slog.Logger) ([]record, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the VM records cannot be read").Because(err)
	}
	var out []record
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".tmp-") {
			_ = os.Remove(filepath.Join(r.dir, name)) // cut off before its rename
			continue
		}
		vm, err := id.Parse(strings.TrimSuffix(name, recordSuffix))
		if err != nil || !strings.HasSuffix(name, recordSuffix) {
			continue
		}
		rec, err := r.read(vm)
		if err != nil {
			log.Error("a VM's record is damaged and was put aside", "vm", vm, "err", err)
			_ = os.Rename(r.path(vm), r.path(vm)+".damaged")
			continue
		}
		out = append(out, rec)
	}
	return out, nil
}

func (r *records) read(vm id.ID) (record, error) {
	var rec record
	b, err := os.ReadFile(r.path(vm))
	if err != nil {
		return rec, err
	}
	if err := json.Unmarshal(b, &rec); err != nil {
		return rec, err
	}
	if rec.VM != vm {
		return rec, errors.New("the record is of another VM")
	}
	return rec, nil
}

// save writes a record so that it is whole or absent after any crash.
func (r *records) save(rec record) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return errs.New(errs.Internal, "a VM record cannot be written").Because(err)
	}
	err = durable.Replace(r.path(rec.VM), b, r.sync)
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return errs.New(errs.NoSpace, "the node's disk is full, and it cannot write its record of the VM: free some space on it").Because(err)
	case err != nil:
		return errs.New(errs.HostFailure, "the node cannot write its record of the VM").Because(err)
	}
	return nil
}

func (r *records) remove(vm id.ID) error {
	if err := os.Remove(r.path(vm)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.HostFailure, "the node cannot remove its record of the VM").Because(err)
	}
	return nil
}

// fenceLife is how long the fence of an erased VM is kept: far longer than any
// command can be under way, since a server that was silent this long has lost
// its claims and its sessions.
const fenceLife = 24 * time.Hour

// holds tells whether the record is more than a fence. A VM whose creation was
// cancelled before anything was made of it leaves a fence alone, too.
func (r record) holds() bool {
	return !r.Erased && (r.PowerOn || r.Machine != nil || len(r.Bases) > 0 || len(r.Volumes) > 0)
}

// prune forgets the fences of VMs that nothing was heard of for long.
func (a *Agent) prune() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for vm, g := range a.guests {
		if g.snapshot().holds() || a.reports.alive(vm) {
			continue
		}
		info, err := os.Stat(a.records.path(vm))
		if err == nil && a.cfg.Clock.Now().Sub(info.ModTime()) < fenceLife {
			continue
		}
		if a.records.remove(vm) == nil {
			delete(a.guests, vm)
		}
	}
}
