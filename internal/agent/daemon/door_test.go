package daemon

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/agent"
	"github.com/novacron/novacron/internal/vocab/clock"
)

// A door lets in the one node it is for, with its ticket; and without TLS only what knows by
// itself who has come.
func TestDoorsLetOneIn(t *testing.T) {
	ca := newAuthority(t)
	home, friend, stranger, foreign := newNeighbour(t, ca), newNeighbour(t, ca), newNeighbour(t, ca), newNeighbour(t, newAuthority(t))
	const ticket = "ticket-of-this-test"
	bare := func(name string) bool { return name == "memory" }
	address, shut, err := home.Land(friend.who.state.Node, ticket, bare, func(_ context.Context, name string, c io.ReadWriteCloser) {
		said := make([]byte, 4)
		if _, err := io.ReadFull(c, said); err == nil {
			_, _ = c.Write(append([]byte(name+" "), said...))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer shut()
	ask := func(from *neighbours, ticket, name string, bare bool) string {
		c, err := from.Reach(t.Context(), agent.Way{Node: home.who.state.Node, Address: address, Ticket: ticket, Name: name, Bare: bare})
		if err != nil {
			return ""
		}
		defer func() { _ = c.Close() }()
		_, _ = c.Write([]byte("here"))
		heard, _ := io.ReadAll(c)
		return string(heard)
	}
	cases := map[string]struct {
		from         *neighbours
		ticket, name string
		bare         bool
		want         string
	}{
		"its node":                             {friend, ticket, "word", false, "word here"},
		"its node, for what knows who comes":   {friend, ticket, "memory", false, "memory here"},
		"without TLS, for what knows":          {friend, ticket, "memory", true, "memory here"},
		"without TLS, for what does not":       {friend, ticket, "word", true, ""},
		"without TLS and another ticket":       {friend, "ticket-of-this-tesx", "memory", true, ""},
		"another ticket":                       {friend, "ticket-of-this-tesx", "word", false, ""},
		"another node":                         {stranger, ticket, "word", false, ""},
		"a node of another cluster":            {foreign, ticket, "word", false, ""},
		"another node, for what knows, by TLS": {stranger, ticket, "memory", false, ""},
	}
	for what, tc := range cases {
		if got := ask(tc.from, tc.ticket, tc.name, tc.bare); got != tc.want {
			t.Errorf("%s: the door answers %q, want %q", what, got, tc.want)
		}
	}
	began := (clock.System{}).Boot()
	shut()
	if took := (clock.System{}).Boot() - began; took > 2*time.Second {
		t.Errorf("shutting the door took %v", took)
	}
	if got := ask(friend, ticket, "word", false); got != "" {
		t.Errorf("a door that is shut answers %q", got)
	}
}
