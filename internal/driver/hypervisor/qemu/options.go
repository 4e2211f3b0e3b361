package qemu

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/uids"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// Options configure a Driver. NodeShort, DataDir and Sink have no defaults.
type Options struct {
	// NodeShort is the short id of the node, 8 hexadecimal digits; everything made
	// on the host carries it.
	NodeShort string
	// DataDir keeps records and logs over restarts of the machine.
	DataDir string
	// RunDir is the base of the sockets' folders; it must be short. Default:
	// /run/novacron for root, $XDG_RUNTIME_DIR/novacron or a folder in /tmp otherwise.
	RunDir string
	// RAMDir is the base of guest memory, on tmpfs. Default: /dev/shm/novacron, with
	// the uid appended when not root.
	RAMDir string
	// Binary is QEMU. Default: qemu-system-x86_64 in PATH.
	Binary string
	// Program is what keepers are started from. Default: this program.
	Program string
	// Accel is "" for what is proved, or "kvm" or "tcg" to say so without a proof.
	Accel string
	// UIDs are lent to guests, one each; used when root, and then required. The zero
	// value takes DefaultUIDs.
	UIDs uids.Range
	// UIDDir is the host-wide folder of uid claims. Default: /run/novacron/uids.
	UIDDir string
	// CgroupParent is a path below each cgroup mount, "" for its root.
	CgroupParent string
	// Bridges of the host that guests may join; none by default.
	Bridges []string
	// TrustEmulation has emulated guests execute while their memory is sent, under any
	// version of QEMU: for tests of what such a guest does, whose memory is not what it was
	// afterwards.
	TrustEmulation bool
	// LogBytes bounds each of the two segments of a console log. Default: 1 MiB.
	LogBytes int64
	Clock    clock.Clock
	Logger   *slog.Logger
	Sink     contract.Sink
}

// DefaultUIDs is far above what distributions and container tools hand out.
var DefaultUIDs = uids.Range{First: 1_879_048_192, Count: 65_536}

var nodeForm = regexp.MustCompile(`^[0-9a-f]{8}$`)

func (o *Options) complete() error {
	if !nodeForm.MatchString(o.NodeShort) {
		return errs.New(errs.InvalidField, "%q is not a node's short id: 8 hexadecimal digits", errs.Clip(o.NodeShort))
	}
	if !filepath.IsAbs(o.DataDir) {
		return errs.New(errs.InvalidField, "the data folder is an absolute path")
	}
	if o.Accel != "" && o.Accel != "kvm" && o.Accel != "tcg" {
		return errs.New(errs.InvalidField, "%q is not an accelerator: kvm or tcg, or nothing to have it proved", errs.Clip(o.Accel))
	}
	o.completePaths()
	if o.Clock == nil {
		o.Clock = clock.System{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.LogBytes <= 0 {
		o.LogBytes = 1 << 20
	}
	if o.UIDs == (uids.Range{}) {
		o.UIDs = DefaultUIDs
	}
	return o.findPrograms()
}

func (o *Options) completePaths() {
	suffix := ""
	if os.Getuid() != 0 {
		suffix = "-" + userName()
	}
	if o.RunDir == "" {
		o.RunDir = "/run/novacron"
		if xdg := os.Getenv("XDG_RUNTIME_DIR"); suffix != "" && filepath.IsAbs(xdg) {
			o.RunDir = filepath.Join(xdg, "novacron")
		} else if suffix != "" {
			o.RunDir = "/tmp/novacron" + suffix
		}
	}
	if o.RAMDir == "" {
		o.RAMDir = "/dev/shm/novacron" + suffix
	}
	if o.UIDDir == "" {
		o.UIDDir = "/run/novacron/uids"
	}
}

func (o *Options) findPrograms() error {
	if o.Binary == "" {
		o.Binary = "qemu-system-x86_64"
	}
	found, err := exec.LookPath(o.Binary)
	if err == nil {
		o.Binary, err = filepath.Abs(found)
	}
	if err != nil {
		return errs.New(errs.Unsupported, "QEMU is not installed on this machine: install qemu-system-x86 or name its program").Because(err)
	}
	if o.Program == "" {
		if o.Program, err = os.Executable(); err != nil {
			return errs.New(errs.HostFailure, "the path of this program cannot be found").Because(err)
		}
	}
	return nil
}
