package local

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// claimPort finds out whether the address can be listened on, before anything is
// started, and turns port 0 into the one used before or a free one. The server
// takes the port a moment later and says so itself if it lost a race.
func claimPort(ctx context.Context, p Paths, listen string) (string, error) {
	host, port, err := splitListen(listen)
	if err != nil {
		return "", err
	}
	m, _ := readMarker(p)
	if port == "0" {
		port = steadyPort(ctx, host, m.Listen)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return "", portError(listen, port, err)
	}
	taken := l.Addr().String()
	if err := l.Close(); err != nil {
		return "", portError(listen, port, err)
	}
	if _, port, err = net.SplitHostPort(taken); err != nil {
		return "", portError(listen, port, err)
	}
	listen = net.JoinHostPort(host, port)
	if m.Listen == listen {
		return listen, nil
	}
	return listen, writeJSON(p.marker(), marker{MadeBy: madeBy, Listen: listen})
}

// steadyPort gives the port used before, or a free one that is below those that the
// kernel gives to outgoing connections: it shall be free after a restart too. Where
// there is none the kernel chooses, which is "0".
func steadyPort(ctx context.Context, host, before string) string {
	if h, last, _ := net.SplitHostPort(before); h == host && tryPort(ctx, before) == nil {
		return last
	}
	const first, tries = 10000, 20
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return "0"
	}
	low, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\t")
	end, err := strconv.Atoi(low)
	if err != nil || end <= first {
		return "0"
	}
	for range tries {
		port := strconv.Itoa(first + rand.IntN(end-first)) //nolint:gosec // which port it is is no secret: it is printed
		if tryPort(ctx, net.JoinHostPort(host, port)) == nil {
			return port
		}
	}
	return "0"
}

func tryPort(ctx context.Context, listen string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	return l.Close()
}

func portError(listen, port string, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		e := errs.New(errs.Conflict, "the port %s is taken by %s: stop that, or choose another port with --listen", port, portHolder(port))
		return e.Because(err)
	case errors.Is(err, unix.EACCES):
		return errs.New(errs.Forbidden, "this user may not listen on port %s: choose one above 1023 with --listen", port).Because(err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return errs.New(errs.InvalidField, "%s is not an address of this machine", listen).Because(err)
	default:
		return errs.New(errs.InvalidField, "cannot listen on %s", listen).Because(err)
	}
}

// portHolder names the process that listens on a port, as far as /proc tells.
func portHolder(port string) string {
	n, err := strconv.Atoi(port)
	if err != nil {
		return "another program"
	}
	inodes := listeners("/proc/net/tcp", n)
	for k := range listeners("/proc/net/tcp6", n) {
		inodes[k] = true
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return "another program"
	}
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !inodes[target] {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		return fmt.Sprintf("process %s (%s)", pid, commandOf(pid))
	}
	return "a program of another user"
}

// listeners gives the sockets that listen on a port, as /proc/PID/fd names them.
func listeners(table string, port int) map[string]bool {
	found := map[string]bool{}
	f, err := os.Open(table)
	if err != nil {
		return found
	}
	defer func() { _ = f.Close() }()
	s := bufio.NewScanner(f)
	for s.Scan() {
		// sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
		fields := strings.Fields(s.Text())
		if len(fields) < 10 || fields[3] != "0A" { // TCP_LISTEN
			continue
		}
		_, hexPort, _ := strings.Cut(fields[1], ":")
		raw, err := hex.DecodeString(hexPort)
		if err == nil && len(raw) == 2 && int(raw[0])<<8|int(raw[1]) == port {
			found["socket:["+fields[9]+"]"] = true
		}
	}
	return found
}

// commandOf gives the words of a process's command that name it; later ones may be
// secrets.
func commandOf(pid string) string {
	b, err := os.ReadFile("/proc/" + pid + "/cmdline")
	if err != nil || len(b) == 0 {
		return "unknown"
	}
	words := bytes.Split(bytes.TrimRight(b, "\x00"), []byte{0})
	name := filepath.Base(string(words[0]))
	if len(words) > 1 && !bytes.HasPrefix(words[1], []byte("-")) {
		name += " " + string(words[1])
	}
	return errs.Clip(name)
}
