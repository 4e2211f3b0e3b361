package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// socketCase is one line of websocket.jsonl: an upgrade, what is sent then, and how
// it ends.
type socketCase struct {
	Name string `json:"name"`
	Path string `json:"path"`
	// Header takes the place of what a good upgrade has; an empty value leaves it out.
	Header map[string]string `json:"header"`
	// Send is written after the upgrade: frames as bytes in hexadecimal digits.
	Send string `json:"send"`
	// Status of the upgrade, 101 for one that is taken, and Code of its problem.
	Status int    `json:"status"`
	Code   string `json:"code"`
	// Close is the code of RFC 6455 with which the server closes.
	Close int `json:"close"`
}

// upgrade is a good one.
func (c socketCase) upgrade(tokens map[string]string) string {
	h := map[string]string{
		"Host": "127.0.0.1", "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Authorization": "Bearer {{admin}}",
	}
	maps.Copy(h, c.Header)
	out := "GET " + c.Path + " HTTP/1.1\r\n"
	for k, v := range h {
		if v != "" {
			out += k + ": " + v + "\r\n"
		}
	}
	for name, token := range tokens {
		out = strings.ReplaceAll(out, "{{"+name+"}}", token)
	}
	return out + "\r\n"
}

// closedWith reads frames until the one that closes, and gives its code; 0 for a
// connection that ended without.
func closedWith(r io.Reader) int {
	for {
		var h [2]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return 0
		}
		n := int64(h[1] & 0x7f)
		if n == 126 {
			var more [2]byte
			if _, err := io.ReadFull(r, more[:]); err != nil {
				return 0
			}
			n = int64(binary.BigEndian.Uint16(more[:]))
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			return 0
		}
		if h[0]&0xf == 8 && n >= 2 {
			return int(binary.BigEndian.Uint16(body))
		}
	}
}

// What a client may do with a WebSocket ends in the exact refusal or the exact way
// to close; nothing is changed, and neither stream nor console is left open.
func TestBadWebSockets(t *testing.T) {
	db := storetest.New(t)
	r := start(t, db, t.TempDir())
	r.nodes(1)
	r.image("tiny")
	if a, status := call[api.Accepted](r, "POST", "/api/v1/vms?wait=20s", newVM("a")); status != http.StatusAccepted || a.Job.State != "succeeded" {
		t.Fatalf("create: %d %+v", status, a)
	}
	tokens := map[string]string{"admin": r.token("admin").Token}
	k, _ := call[api.Token](r, "POST", "/api/v1/tokens", api.TokenCreate{Name: "reader", Role: "reader"})
	tokens["reader"] = k.Token
	ask := r.asker(tokens["admin"])
	ask("GET", "/api/v1/vms", nil)
	r.asker(k.Token)("GET", "/api/v1/vms", nil)
	ignored := []string{actionAuthenticate, "openVMConsole", "openVMScreen", "vm.console"}
	before := written(t, db, ignored...)
	for _, c := range lineByLine[socketCase](t, filepath.Join(corpus, "websocket.jsonl")) {
		t.Run(c.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			conn, rd, resp := r.upgraded(t, c.upgrade(tokens))
			for c.Status == http.StatusSwitchingProtocols && resp.StatusCode == http.StatusConflict {
				// the console of the case before is on its way out
				if (clock.System{}).Sleep(ctx, 10*time.Millisecond) != nil {
					t.Fatal("the console stays in use")
				}
				conn, rd, resp = r.upgraded(t, c.upgrade(tokens))
			}
			if resp.StatusCode != c.Status {
				body, _ := io.ReadAll(resp.Body)
				t.Fatalf("answered %d %.200s, want %d", resp.StatusCode, body, c.Status)
			}
			if c.Status != http.StatusSwitchingProtocols {
				var e api.Error
				if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Code != c.Code {
					t.Errorf("answered %+v %v, want %s", e, err, c.Code)
				}
				return
			}
			if _, err := io.WriteString(conn, expand(c.Send)); err != nil {
				t.Fatal(err)
			}
			if got := closedWith(rd); got != c.Close {
				t.Errorf("closed with %d, want %d", got, c.Close)
			}
		})
	}
	r.until("no stream is left open", 20*time.Second, func() bool { return gauges(t, ask)["novacron_http_streams_open"] == 0 })
	if diff := cmp.Diff(before, written(t, db, ignored...)); diff != "" {
		t.Errorf("rows before and after:\n%s", diff)
	}
	if v, _ := call[api.VM](r, "GET", "/api/v1/vms/a", nil); v.Status.State != "running" {
		t.Errorf("the VM is %s", v.Status.State)
	}
}

// upgraded sends a request for a WebSocket on a connection of its own, which the test
// closes, and reads the head of the answer.
func (r *running) upgraded(t *testing.T, request string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	conn, err := tls.Dial("tcp", r.info.Address, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	rd := bufio.NewReader(conn)
	resp, err := http.ReadResponse(rd, nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn, rd, resp
}
