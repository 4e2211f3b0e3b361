package qemu

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// proofSector is a boot sector; guestcode/proof.s says what it does.
//
//go:embed guestcode/proof.bin
var proofSector []byte

const (
	// proofTime is how long the proof may take. Usable hosts need a second.
	proofTime = 5 * time.Second
	// proofExit is QEMU's exit code when the guest wrote 0x10 to isa-debug-exit.
	proofExit = 0x10<<1 | 1
)

// proofSteps is what the guest writes, and what it had reached by then.
var proofSteps = []struct {
	letter byte
	what   string
}{
	{'R', "its first instruction"},
	{'I', "timer interrupts"},
	{'P', "protected mode"},
	{'p', "computing in protected mode"},
	{'L', "long mode"},
	{'l', "computing in long mode"},
	{'C', "copying memory"},
}

// proveKVM boots a tiny guest under KVM and gives the accelerator to use.
func (d *Driver) proveKVM(ctx context.Context) (accel, reason string, err error) {
	err = d.boot(ctx, "kvm", proofTime)
	if ctx.Err() != nil {
		return "", "", errs.New(errs.Timeout, "the proof of KVM was interrupted").Because(ctx.Err())
	}
	if err == nil {
		return "kvm", "", nil
	}
	d.log.Warn("KVM is there but not usable; guests run under TCG", "error", err)
	return "tcg", "KVM is there but not usable: " + err.Error() + "; TCG is slow and no isolation boundary", nil
}

// boot runs the proof guest under an accelerator and says why it did not succeed.
func (d *Driver) boot(ctx context.Context, accel string, patience time.Duration) error {
	image, err := d.proofImage()
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(image) }()
	timed, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		if d.opt.Clock.Sleep(timed, patience) == nil {
			cancel(context.DeadlineExceeded)
		}
	}()
	cmd := exec.CommandContext(timed, d.opt.Binary, //nolint:gosec // the operator's choice
		"-nodefaults", "-no-user-config", "-display", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", "q35,usb=off", "-accel", accel, "-m", "64",
		"-chardev", "stdio,id=serial,signal=off", "-device", `{"driver":"isa-serial","chardev":"serial"}`,
		"-device", `{"driver":"isa-debug-exit","iobase":244,"iosize":1}`,
		"-blockdev", fmt.Sprintf(`{"driver":"file","node-name":"file","filename":%q,"read-only":true}`, image),
		"-blockdev", `{"driver":"raw","node-name":"disk","file":"file","read-only":true}`,
		"-device", `{"driver":"virtio-blk-pci","drive":"disk","bootindex":0}`,
	)
	var said, complained bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &complained
	err = cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) && ended.ExitCode() == proofExit {
		return nil
	}
	if errors.Is(context.Cause(timed), context.DeadlineExceeded) {
		return fmt.Errorf("a test guest did not end within %s, having reached %s", patience, reached(said.Bytes()))
	}
	d.log.Debug("proof guest", "accelerator", accel, "error", err, "stderr", complained.String())
	return fmt.Errorf("a test guest ended early, having reached %s", reached(said.Bytes()))
}

// proofImage writes the boot sector where QEMU can open it.
func (d *Driver) proofImage() (string, error) {
	name := filepath.Join(d.opt.DataDir, "proof.img")
	if err := os.WriteFile(name, append(bytes.Clone(proofSector), make([]byte, 1<<20-len(proofSector))...), 0o600); err != nil {
		return "", fmt.Errorf("write the test guest: %w", err)
	}
	return name, nil
}

func reached(said []byte) string {
	what := "nothing"
	for _, s := range proofSteps {
		if bytes.IndexByte(said, s.letter) >= 0 {
			what = s.what
		}
	}
	return what
}
