package hypertest

import (
	"os"
	"path/filepath"
	"strconv"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func cdCases() []testCase {
	return []testCase{
		{"Launch takes CDs, one of which several guests have", sharesCD},
		{"Launch refuses impossible CDs", cdRefuses},
	}
}

// cd makes an image that guests only read.
func (b *bench) cd(dir, name string, private bool) contract.CD {
	b.Helper()
	c := contract.CD{ID: id.New(), File: contract.File{Path: filepath.Join(dir, name), Format: "raw"}, Private: private}
	if err := os.WriteFile(c.File.Path, make([]byte, 64<<10), 0o644); err != nil { //nolint:gosec // shared ones are for all to read
		b.Fatal(err)
	}
	return c
}

func sharesCD(b *bench) {
	dir := ShortDir(b.T)
	shared := b.cd(dir, "shared", false)
	all := []contract.Machine{b.Machine(b.T, Polite), b.Machine(b.T, Polite)}
	for i := range all {
		all[i].CDs = []contract.CD{b.cd(dir, strconv.Itoa(i), true), shared}
		b.start(all[i])
	}
	b.adoptOne(all[1].VM, nil)
	// its next incarnation finds its own again
	b.kill(all[0].Ref)
	all[0].Epoch++
	b.start(all[0])
	for _, m := range all {
		for _, c := range m.CDs {
			if read, err := os.ReadFile(c.File.Path); err != nil || len(read) != 64<<10 {
				b.Errorf("a CD was left as %d bytes, %v", len(read), err)
			}
		}
	}
	b.clean(all...)
}

func cdRefuses(b *bench) {
	dir := ShortDir(b.T)
	for what, touch := range map[string]func(*contract.Machine){
		"no id":         func(m *contract.Machine) { m.CDs[0].ID = id.Nil },
		"a disk's id":   func(m *contract.Machine) { m.CDs[0].ID = m.Disks[0].ID },
		"relative path": func(m *contract.Machine) { m.CDs[0].File.Path = "seed" },
		"qcow2":         func(m *contract.Machine) { m.CDs[0].File.Format = "qcow2" },
		"too many": func(m *contract.Machine) {
			for range contract.MaxCDs {
				m.CDs = append(m.CDs, b.cd(dir, id.New().String(), false))
			}
		},
	} {
		m := b.Machine(b.T, Polite)
		m.CDs = []contract.CD{b.cd(dir, "cd", false)}
		touch(&m)
		if s, err := b.Driver().Launch(b.ctx, m); !errs.Is(err, errs.InvalidField) && !errs.Is(err, errs.OutOfRange) {
			b.Errorf("%s: %+v, %v", what, s, err)
		}
	}
	b.clean()
}
