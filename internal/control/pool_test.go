package control_test

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Nodes with one folder have one pool; it is forgotten once no node has it.
func TestPools(t *testing.T) {
	c := controltest.NewSharing(t, 3)
	all, _, err := c.Service.Pools(t.Context(), store.Page{Limit: 9})
	if err != nil || len(all) != 1 || all[0].Name != controltest.SharedPool || len(all[0].Nodes) != 3 || all[0].CapacityBytes == 0 {
		t.Fatalf("pools %+v, %v", all, err)
	}
	if err := c.Service.DeletePool(t.Context(), controltest.Admin(), controltest.SharedPool); !errs.Is(err, errs.InUse) || !strings.Contains(err.Error(), "n1, n2, n3") {
		t.Errorf("a pool that nodes have: %v", err)
	}
	for _, n := range c.Nodes {
		epoch, err := c.Store.NodeEpoch(t.Context(), n.ID)
		if err == nil {
			err = c.Service.NodePools(t.Context(), n.ID, epoch-1, nil)
		}
		if !errs.Is(err, errs.StaleEpoch) {
			t.Errorf("a former agent: %v", err)
		}
		if err := c.Service.NodePools(t.Context(), n.ID, epoch, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Service.DeletePool(t.Context(), controltest.Admin(), all[0].ID.String()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Service.Pool(t.Context(), controltest.SharedPool); !errs.Is(err, errs.NotFound) {
		t.Errorf("forgotten: %v", err)
	}
}

// What a node says of its pools is bounded.
func TestPoolsOfAStrangeNode(t *testing.T) {
	c := controltest.New(t, 1)
	n := c.Nodes[0].ID
	epoch, err := c.Store.NodeEpoch(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	said := []nodelink.Pool{{Name: "../etc"}, {Name: "ok", Why: "a\nb" + strings.Repeat("x", 1<<16), TotalBytes: -1}, {Name: "ok", ID: id.New()}}
	for range 2 * nodelink.MostPools {
		said = append(said, nodelink.Pool{ID: id.New(), Name: "p" + id.New().String()[:8] + id.New().String()[24:], TotalBytes: unit.GiB})
	}
	if err := c.Service.NodePools(t.Context(), n, epoch, said); err != nil {
		t.Fatal(err)
	}
	got, err := c.Service.Node(t.Context(), "n1")
	if err != nil || len(got.Pools) != nodelink.MostPools || got.Pools[0].Name != "ok" || strings.Contains(got.Pools[0].Why, "\n") {
		t.Errorf("%d pools, %v", len(got.Pools), err)
	}
}
