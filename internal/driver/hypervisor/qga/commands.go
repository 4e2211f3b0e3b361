package qga

import (
	"context"
	"net/netip"
	"strings"
	"unicode"
)

// Bounds of what is taken from a guest.
const (
	mostInterfaces = 64
	mostAddresses  = 64 // of an interface
	mostMounts     = 128
	mostText       = 255
)

// clean bounds a text of the guest and takes away what is none.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, s)
	if len(s) > mostText {
		s = strings.ToValidUTF8(s[:mostText], "")
	}
	return s
}

// Version is the agent's own.
func (c *Client) Version(ctx context.Context) (string, error) {
	var is struct {
		Version string `json:"version"`
	}
	err := c.Call(ctx, "guest-info", nil, &is)
	return clean(is.Version), err
}

// Interface is a network interface of the guest.
type Interface struct {
	Name, MAC string
	Addresses []netip.Prefix
}

// Interfaces lists the guest's network interfaces, as it tells them.
func (c *Client) Interfaces(ctx context.Context) ([]Interface, error) {
	var is []struct {
		Name      string `json:"name"`
		MAC       string `json:"hardware-address"`
		Addresses []struct {
			Address string `json:"ip-address"`
			Prefix  int    `json:"prefix"`
		} `json:"ip-addresses"`
	}
	if err := c.Call(ctx, "guest-network-get-interfaces", nil, &is); err != nil {
		return nil, err
	}
	var out []Interface
	for _, i := range is[:min(len(is), mostInterfaces)] {
		one := Interface{Name: clean(i.Name), MAC: clean(i.MAC)}
		for _, a := range i.Addresses[:min(len(i.Addresses), mostAddresses)] {
			addr, err := netip.ParseAddr(a.Address)
			if err != nil || addr.Zone() != "" {
				continue
			}
			if p := netip.PrefixFrom(addr, a.Prefix); p.IsValid() {
				one.Addresses = append(one.Addresses, p)
			}
		}
		out = append(out, one)
	}
	return out, nil
}

// Mount is a file system of the guest.
type Mount struct {
	Path, Type string
	// TotalBytes and UsedBytes are 0 where the agent does not tell.
	TotalBytes, UsedBytes int64
}

// Mounts lists the guest's file systems, as it tells them.
func (c *Client) Mounts(ctx context.Context) ([]Mount, error) {
	var is []struct {
		Path  string `json:"mountpoint"`
		Type  string `json:"type"`
		Total int64  `json:"total-bytes"`
		Used  int64  `json:"used-bytes"`
	}
	if err := c.Call(ctx, "guest-get-fsinfo", nil, &is); err != nil {
		return nil, err
	}
	var out []Mount
	for _, m := range is[:min(len(is), mostMounts)] {
		total := max(m.Total, 0)
		out = append(out, Mount{Path: clean(m.Path), Type: clean(m.Type), TotalBytes: total, UsedBytes: min(max(m.Used, 0), total)})
	}
	return out, nil
}

// Frozen tells whether file systems are frozen.
func (c *Client) Frozen(ctx context.Context) (bool, error) {
	var is string
	err := c.Call(ctx, "guest-fsfreeze-status", nil, &is)
	return is == "frozen", err
}

// Freeze halts the guest's file systems and tells how many.
func (c *Client) Freeze(ctx context.Context) (int, error) {
	var n int
	err := c.Call(ctx, "guest-fsfreeze-freeze", nil, &n)
	return min(max(n, 0), mostText), err
}

// Thaw lets them go on.
func (c *Client) Thaw(ctx context.Context) error {
	return c.Call(ctx, "guest-fsfreeze-thaw", nil, nil)
}

// PowerDown asks the guest to shut down. The agent says nothing to that unless it
// refuses: so it is asked for a number behind it, whose answer shows that it was read.
func (c *Client) PowerDown(ctx context.Context) error {
	defer c.bound(ctx)()
	if err := c.send("guest-shutdown", map[string]string{"mode": "powerdown"}); err != nil {
		return err
	}
	return c.Call(ctx, "guest-sync", map[string]int64{"id": 1}, nil)
}

// Start runs a program and gives its number.
func (c *Client) Start(ctx context.Context, path string, args []string, input []byte) (int64, error) {
	if args == nil {
		args = []string{}
	}
	what := map[string]any{"path": path, "arg": args, "capture-output": true}
	if len(input) > 0 {
		what["input-data"] = input
	}
	var is struct {
		PID int64 `json:"pid"`
	}
	err := c.Call(ctx, "guest-exec", what, &is)
	return is.PID, err
}

// Ended is how a program ended.
type Ended struct {
	Exited bool   `json:"exited"`
	Code   int    `json:"exitcode"`
	Signal int    `json:"signal"`
	Out    []byte `json:"out-data"`
	Err    []byte `json:"err-data"`
	// Cut: the agent itself has kept no more of one of them.
	OutCut bool `json:"out-truncated"`
	ErrCut bool `json:"err-truncated"`
}

// Look tells how a program is; its output comes once, with its end.
func (c *Client) Look(ctx context.Context, pid int64) (Ended, error) {
	var is Ended
	err := c.Call(ctx, "guest-exec-status", map[string]int64{"pid": pid}, &is)
	return is, err
}
