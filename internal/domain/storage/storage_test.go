package storage_test

import (
	"testing"

	"github.com/novacron/novacron/internal/domain/storage"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func TestDelete(t *testing.T) {
	for name, c := range map[string]struct {
		pool storage.Pool
		free bool
	}{
		"nobody has it": {storage.Pool{Name: "p"}, true},
		"a node":        {storage.Pool{Name: "p", Nodes: []storage.On{{NodeName: "n"}}}, false},
		"a disk":        {storage.Pool{Name: "p", Volumes: []storage.Volume{{VMName: "v"}}}, false},
	} {
		if err := c.pool.Delete(); (err == nil) != c.free || err != nil && !errs.Is(err, errs.InUse) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
