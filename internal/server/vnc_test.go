package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"image/png"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/driver/hypervisor/rfb"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// viewers opens screens with a token.
type viewers struct {
	*running
	t     *testing.T
	token string
}

// open gives the status, and the stream where it was opened.
func (v viewers) open(path string, protocols ...string) (net.Conn, int) {
	v.t.Helper()
	header := http.Header{}
	if len(protocols) == 0 {
		header.Set("Authorization", "Bearer "+v.token)
	}
	plain := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}}}
	conn, resp, err := websocket.Dial(v.t.Context(), "https://"+v.info.Address+path, &websocket.DialOptions{HTTPClient: plain, Subprotocols: protocols, HTTPHeader: header})
	if err != nil {
		if resp == nil {
			v.t.Fatal(err)
		}
		return nil, resp.StatusCode
	}
	v.t.Cleanup(func() { _ = conn.CloseNow() })
	return websocket.NetConn(v.t.Context(), conn, websocket.MessageBinary), resp.StatusCode
}

func (v viewers) looks(path string, protocols ...string) net.Conn {
	v.t.Helper()
	c, status := v.open(path, protocols...)
	if status != http.StatusSwitchingProtocols {
		v.t.Fatalf("%s: %d", path, status)
	}
	if p, err := rfb.Look(c); err != nil || p.Bounds().Dx() != 160 {
		v.t.Fatalf("%s shows %v, %v", path, p, err)
	}
	return c
}

// A screen has one who may type and any number who look on; a ticket opens it too;
// it closes when the token behind it is revoked.
func TestScreens(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	r.nodes(1)
	r.image("tiny")
	r.does("POST", "/api/v1/vms", newVM("a"))
	ops := r.token("ops")
	v := viewers{r, t, ops.Token}
	const screen = "/api/v1/vms/a/vnc"
	typing := v.looks(screen)
	if _, status := v.open(screen); status != http.StatusConflict {
		t.Errorf("a second one who types: %d", status)
	}
	v.looks(screen + "?view_only=true")
	v.looks(screen + "?view_only=true")
	_ = typing.Close()
	v.eventually("the keyboard is free again", func() bool {
		c, status := v.open(screen)
		if c != nil {
			_ = c.Close()
		}
		return status == http.StatusSwitchingProtocols
	})

	k, status := call[api.ConsoleTicket](r, "POST", "/api/v1/vms/a/console-tickets", nil)
	if status != http.StatusCreated {
		t.Fatal(status)
	}
	v.looks(screen+"?view_only=true", k.Protocols...)
	if _, status := v.open(screen+"?view_only=true", k.Protocols...); status != http.StatusUnauthorized {
		t.Errorf("a ticket twice: %d", status)
	}

	code, body := r.raw("GET", "/api/v1/vms/a/screenshot", nil)
	if p, err := png.Decode(bytes.NewReader(body)); code != http.StatusOK || err != nil || p.Bounds().Dx() != 160 {
		t.Errorf("the screenshot: %d %v", code, err)
	}
	r.does("POST", "/api/v1/vms/a/stop", map[string]any{"force": true})
	if code, body := r.raw("GET", "/api/v1/vms/a/screenshot", nil); code != http.StatusConflict {
		t.Errorf("of a stopped VM: %d %s", code, body)
	}
	r.does("POST", "/api/v1/vms/a/start", nil)

	looking := v.looks(screen + "?view_only=true")
	serial, status := v.open("/api/v1/vms/a/console")
	if status != http.StatusSwitchingProtocols {
		t.Fatalf("the console: %d", status)
	}
	if status, b := r.raw("DELETE", "/api/v1/tokens/"+ops.ID+"?force=true", nil); status != http.StatusNoContent {
		t.Fatalf("revoke: %d %s", status, b)
	}
	for what, c := range map[string]net.Conn{"screen": looking, "console": serial} {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second)) // a bound of the test, not of the behaviour
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the %s outlives its token", what)
		}
	}
}

func (v viewers) eventually(what string, is func() bool) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), 20*time.Second)
	defer cancel()
	for !is() {
		if (clock.System{}).Sleep(ctx, 20*time.Millisecond) != nil {
			v.t.Fatal("not seen: ", what)
		}
	}
}

// The serial console has one writer; any number look on from what is kept of it, and
// what they send does not reach the guest.
func TestConsoleReaders(t *testing.T) {
	r := start(t, storetest.New(t), t.TempDir())
	r.nodes(1)
	r.image("tiny")
	r.does("POST", "/api/v1/vms", newVM("a"))
	v := viewers{r, t, r.token("ops").Token}
	const console = "/api/v1/vms/a/console"
	writer, status := v.open(console)
	if status != http.StatusSwitchingProtocols {
		t.Fatal(status)
	}
	if _, status := v.open(console); status != http.StatusConflict {
		t.Errorf("a second writer: %d", status)
	}
	see := func(c net.Conn, want string) {
		t.Helper()
		_ = c.SetReadDeadline(clock.Deadline(20 * time.Second))
		var got []byte
		for buf := make([]byte, 4096); !bytes.Contains(got, []byte(want)); {
			n, err := c.Read(buf)
			if got = append(got, buf[:n]...); err != nil {
				t.Fatalf("it shows %q, without %q: %v", got, want, err)
			}
		}
		if bytes.Contains(got, []byte("from a reader")) {
			t.Errorf("the guest was told what a reader sent: %q", got)
		}
	}
	var readers []net.Conn
	for range 2 {
		c, status := v.open(console + "?view_only=true")
		if status != http.StatusSwitchingProtocols {
			t.Fatal(status)
		}
		if _, err := c.Write([]byte("from a reader\r")); err != nil {
			t.Fatal(err)
		}
		readers = append(readers, c)
	}
	if _, err := writer.Write([]byte("from the writer\r")); err != nil {
		t.Fatal(err)
	}
	for _, c := range append(readers, writer) {
		see(c, "from the writer")
	}
}
