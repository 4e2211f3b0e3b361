package e2e

import (
	"bufio"
	"image"
	"image/png"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/novacron/novacron/internal/driver/hypervisor/rfb"
)

// screen looks at a guest by a picture and as a viewer, each through the command line.
func (i *instance) screen(vm string) {
	i.t.Helper()
	file := filepath.Join(i.t.TempDir(), "screen.png")
	i.must("vm", "screenshot", vm, "--file", file)
	f, err := os.Open(file)
	if err != nil {
		i.t.Fatal(err)
	}
	defer f.Close()
	shot, err := png.Decode(f)
	if err != nil || blank(shot) {
		i.t.Errorf("the screenshot of a guest that has said something is blank, or none: %v", err)
	}
	cmd := exec.CommandContext(i.t.Context(), binary, "vm", "vnc", vm, "--once")
	cmd.Env = append(os.Environ(), "NOVACRON_DATA_DIR="+i.data, "HOME="+i.data)
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		i.t.Fatal(err)
	}
	line, _ := bufio.NewReader(said).ReadString('\n')
	_, at, _ := strings.Cut(line, " is at ")
	at, _, _ = strings.Cut(at, ";")
	viewer, err := net.Dial("tcp", at)
	if err != nil {
		i.t.Fatalf("%q: %v", line, err)
	}
	seen, err := rfb.Look(viewer)
	if err != nil || blank(seen) {
		i.t.Errorf("a viewer sees nothing: %v", err)
	}
	_ = viewer.Close()
	if err := cmd.Wait(); err != nil {
		i.t.Errorf("vm vnc --once: %v", err)
	}
}

// blank tells whether a picture has one colour.
func blank(p image.Image) bool {
	first := p.At(p.Bounds().Min.X, p.Bounds().Min.Y)
	for y := p.Bounds().Min.Y; y < p.Bounds().Max.Y; y++ {
		for x := p.Bounds().Min.X; x < p.Bounds().Max.X; x++ {
			if p.At(x, y) != first {
				return false
			}
		}
	}
	return true
}
