package server

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/store/storetest"
)

// A console ticket opens one console, once, for half a minute, while its token and
// its incarnation of the VM are good; for anything else it is used up.
func TestConsoleTickets(t *testing.T) {
	db := storetest.New(t)
	r := start(t, db, t.TempDir())
	r.nodes(1)
	r.image("tiny")
	for _, name := range []string{"a", "b"} {
		r.does("POST", "/api/v1/vms", newVM(name))
	}
	ops := r.token("ops")
	ask := r.asker(ops.Token)
	reader, _ := call[api.Token](r, "POST", "/api/v1/tokens", api.TokenCreate{Name: "reader", Role: "reader"})
	plain := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}}}
	// opens tells the status of a request for a console, and closes one that opens
	opens := func(vm string, protocols []string, header http.Header) int {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		conn, resp, err := websocket.Dial(ctx, "https://"+r.info.Address+"/api/v1/vms/"+vm+"/console", &websocket.DialOptions{HTTPClient: plain, Subprotocols: protocols, HTTPHeader: header})
		if err == nil {
			defer func() { _ = conn.CloseNow() }()
			if conn.Subprotocol() != "novacron.console" {
				t.Errorf("the subprotocol is %q", conn.Subprotocol())
			}
			if err := conn.Write(ctx, websocket.MessageBinary, []byte("\r")); err != nil {
				t.Errorf("the console takes nothing: %v", err)
			}
		}
		if resp == nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	ticket := func(vm string) api.ConsoleTicket {
		t.Helper()
		k, status := call[api.ConsoleTicket](r, "POST", "/api/v1/vms/"+vm+"/console-tickets", nil)
		if status != http.StatusCreated || !strings.HasPrefix(k.Ticket, "nvt_") || len(k.Protocols) != 2 {
			t.Fatalf("ticket: %d %+v", status, k)
		}
		return k
	}
	good := ticket("a")
	if got := opens("a", good.Protocols, nil); got != http.StatusSwitchingProtocols {
		t.Errorf("a good ticket: %d", got)
	}
	if got := opens("a", good.Protocols, nil); got != http.StatusUnauthorized {
		t.Errorf("a ticket works twice: %d", got)
	}
	foreign := ticket("a")
	if got := opens("b", foreign.Protocols, nil); got != http.StatusUnauthorized {
		t.Errorf("a ticket opens another VM's console: %d", got)
	}
	if got := opens("a", foreign.Protocols, nil); got != http.StatusUnauthorized {
		t.Errorf("a ticket that was shown for another VM is still good: %d", got)
	}
	evil := ticket("a")
	if got := opens("a", evil.Protocols, http.Header{"Origin": {"https://evil.example"}}); got != http.StatusForbidden {
		t.Errorf("from another site: %d", got)
	}
	if got := opens("a", evil.Protocols, nil); got != http.StatusUnauthorized {
		t.Errorf("a ticket that another site's page showed is still good: %d", got)
	}
	old := ticket("a")
	if _, err := db.Owner.Exec(t.Context(), "UPDATE console_tickets SET expires_at = expires_at - interval '31 seconds'"); err != nil {
		t.Fatal(err)
	}
	if got := opens("a", old.Protocols, nil); got != http.StatusUnauthorized {
		t.Errorf("after half a minute: %d", got)
	}
	late := ticket("a")
	if _, err := db.Owner.Exec(t.Context(), "UPDATE console_tickets SET expires_at = expires_at + interval '1 hour'"); err != nil {
		t.Fatal(err)
	}
	if got := opens("a", late.Protocols, nil); got != http.StatusUnauthorized {
		t.Errorf("one that is good for longer than any: %d", got)
	}
	before := ticket("a")
	r.does("POST", "/api/v1/vms/a/restart", nil)
	if got := opens("a", before.Protocols, nil); got != http.StatusUnauthorized {
		t.Errorf("of an earlier incarnation: %d", got)
	}
	var others api.ConsoleTicket
	if a := ask("POST", "/api/v1/vms/a/console-tickets", nil); a.status == http.StatusCreated {
		others = api.ConsoleTicket{Protocols: []string{consoleProtocol, ticketProtocol + field(t, a.body, "ticket")}}
	} else {
		t.Fatalf("a token's ticket: %d %s", a.status, a.body)
	}
	if status, b := r.raw("DELETE", "/api/v1/tokens/"+ops.ID+"?force=true", nil); status != http.StatusNoContent {
		t.Fatalf("revoke: %d %s", status, b)
	}
	if got := opens("a", others.Protocols, nil); got != http.StatusUnauthorized {
		t.Errorf("of a revoked token: %d", got)
	}
	if a := r.asker(reader.Token)("POST", "/api/v1/vms/a/console-tickets", nil); a.status != http.StatusForbidden {
		t.Errorf("a reader's: %d", a.status)
	}
	bearer := ticket("a")
	if a := r.asker(bearer.Ticket)("GET", "/api/v1/vms", nil); a.status != http.StatusUnauthorized {
		t.Errorf("as a token: %d", a.status)
	}
	var left, opened, made int
	if err := db.Owner.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM console_tickets), count(*) FILTER (WHERE action = 'vm.console'),
		count(*) FILTER (WHERE action = 'vm.console_ticket') FROM audit_log WHERE outcome = 'accepted'`).Scan(&left, &opened, &made); err != nil {
		t.Fatal(err)
	}
	if left != 1 || opened != 1 || made != 8 {
		t.Errorf("%d tickets are left, %d consoles were opened and %d tickets made on the record", left, opened, made)
	}
}
