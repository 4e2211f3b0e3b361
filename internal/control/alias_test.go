package control_test

import (
	"sync"
	"testing"

	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Of many that want one name, as an alias or as an image's own, one gets it, and
// an alias that is moved under readers leads somewhere at every moment.
func TestAliasesRaced(t *testing.T) {
	c := controltest.New(t, 1)
	ctx, who := t.Context(), controltest.Admin()
	if _, err := c.Service.SetAlias(ctx, who, "tiny", "stable"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				if i, err := c.Service.Image(ctx, "stable"); err != nil || i.Name != "tiny" {
					t.Errorf("%+v %v", i, err)
					return
				}
			}
		})
		wg.Go(func() {
			_, err := c.Service.CreateImage(ctx, who, "wanted", image.Disk, "")
			if err != nil && !errs.Is(err, errs.AlreadyExists) {
				t.Error(err)
			}
		})
		wg.Go(func() {
			_, err := c.Service.SetAlias(ctx, who, "tiny", "wanted")
			if err != nil && !errs.Is(err, errs.AlreadyExists) {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := c.Service.SetAlias(ctx, who, "tiny", "stable"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all, _, err := c.Service.Images(ctx, store.Page{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	holders := 0
	for _, i := range all {
		if i.Name == "wanted" {
			holders++
		}
		for _, a := range i.Aliases {
			if a == "wanted" {
				holders++
			}
		}
	}
	if holders != 1 {
		t.Errorf("%d images answer to one name: %+v", holders, all)
	}
}
