package hypertest

import (
	"bytes"
	"image"
	"image/png"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/rfb"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func displayCases() []testCase {
	return []testCase{
		{"Display shows several viewers one screen", displayShows},
		{"Display and Screenshot refuse what is not there", displayRefuses},
	}
}

// displayer gives the driver's ability, or checks that it denies having it.
func (b *bench) displayer() (contract.Displayer, bool) {
	b.Helper()
	d, is := b.Driver().(contract.Displayer)
	if is != b.Driver().Capabilities().Display {
		b.Fatalf("the driver is a Displayer: %v; its capabilities say %v", is, !is)
	}
	return d, is
}

// screened launches a machine with a screen.
func (b *bench) screened() contract.Machine {
	b.Helper()
	m := b.Machine(b.T, Polite)
	m.Screen = true
	b.start(m)
	return m
}

func displayShows(b *bench) {
	if _, ok := b.displayer(); !ok {
		return
	}
	m := b.screened()
	look := func() {
		b.Helper()
		d, _ := b.displayer()
		first, err := d.Display(b.ctx, m.Ref)
		if err != nil {
			b.Fatalf("display: %v", err)
		}
		defer first.Close()
		second, err := d.Display(b.ctx, m.Ref)
		if err != nil {
			b.Fatalf("a second viewer: %v", err)
		}
		defer second.Close()
		for range 2 { // the second looks while the first is there
			if _, err := rfb.Look(first); err != nil {
				b.Fatalf("look: %v", err)
			}
			first, second = second, first
		}
		shot, err := d.Screenshot(b.ctx, m.Ref)
		if err != nil {
			b.Fatalf("screenshot: %v", err)
		}
		picture, err := png.Decode(bytes.NewReader(shot))
		if err != nil {
			b.Fatalf("the screenshot is no PNG: %v", err)
		}
		if s := picture.Bounds().Size(); s.X < 80 || s.Y < 25 {
			b.Fatalf("the screen is of %v", s)
		}
	}
	look()
	b.adoptOne(m.VM, nil)
	look()
	b.awaitPicture(m)
	b.clean(m)
}

// awaitPicture waits for something to be on the screen.
func (b *bench) awaitPicture(m contract.Machine) {
	b.Helper()
	for {
		d, _ := b.displayer()
		shot, err := d.Screenshot(b.ctx, m.Ref)
		if err != nil {
			b.Fatalf("screenshot: %v", err)
		}
		if picture, err := png.Decode(bytes.NewReader(shot)); err == nil && colours(picture) > 1 {
			return
		}
		if (clock.System{}).Sleep(b.ctx, 20*time.Millisecond) != nil {
			b.Fatal("the screen stays blank")
		}
	}
}

// colours counts those of a picture.
func colours(p image.Image) int {
	seen := map[[3]uint32]bool{}
	for y := p.Bounds().Min.Y; y < p.Bounds().Max.Y; y++ {
		for x := p.Bounds().Min.X; x < p.Bounds().Max.X; x++ {
			r, g, b, _ := p.At(x, y).RGBA()
			seen[[3]uint32{r, g, b}] = true
		}
	}
	return len(seen)
}

func displayRefuses(b *bench) {
	d, ok := b.displayer()
	if !ok {
		return
	}
	m := b.screened()
	for what, c := range map[string]struct {
		ref  contract.Ref
		code errs.Code
	}{
		"another epoch": {contract.Ref{VM: m.VM, Epoch: 7}, errs.StaleEpoch},
		"another VM":    {contract.Ref{VM: id.New(), Epoch: 1}, errs.NotFound},
	} {
		_, err := d.Display(b.ctx, c.ref)
		b.wantCode(err, c.code, what)
		_, err = d.Screenshot(b.ctx, c.ref)
		b.wantCode(err, c.code, what)
	}
	b.kill(m.Ref)
	_, err := d.Display(b.ctx, m.Ref)
	b.wantCode(err, errs.InvalidState, "a guest that ended")
	b.clean(m)
}
