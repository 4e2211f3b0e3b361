package chaos

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// relay stands between a server and the database. It knows the statement that swaps a VM,
// and the commit after it.
type relay struct {
	dir           string
	network, host string
	at            func(point)

	mu    sync.Mutex
	away  bool
	conns map[net.Conn]bool
}

// openRelay makes the way to the database of a URL, and gives its URL.
func openRelay(t testing.TB, dir, to string, at func(point)) (*relay, string) {
	t.Helper()
	cfg, err := pgx.ParseConfig(to)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{dir: dir, at: at, conns: map[net.Conn]bool{}}
	r.network, r.host = pgconn.NetworkAddress(cfg.Host, cfg.Port)
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(); r.cut() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.carry(c)
		}
	}()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("host", dir)
	q.Del("port")
	u.Host, u.RawQuery = "", strings.ReplaceAll(q.Encode(), "+", "%20")
	return r, u.String()
}

// cut takes the database away.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = true
	for c := range r.conns {
		_ = c.Close()
	}
}

// mend brings it back.
func (r *relay) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = false
}

func (r *relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.away {
		r.conns[c] = true
	}
	return !r.away
}

func (r *relay) forget(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	_ = c.Close()
}

func (r *relay) carry(server net.Conn) {
	defer server.Close()
	if !r.keep(server) {
		return
	}
	defer r.forget(server)
	database, err := net.Dial(r.network, r.host)
	if err != nil || !r.keep(database) {
		return
	}
	defer r.forget(database)
	w := &wire{relay: r, swaps: map[string]bool{}, commits: make(chan struct{}, 1)}
	go func() {
		defer server.Close()
		w.answers(server, database)
	}()
	w.statements(database, server)
}

// wire is one connection of PostgreSQL's protocol, version 3.
type wire struct {
	*relay
	swaps   map[string]bool // the statements that swap
	swapped bool            // one has run since the last commit
	commits chan struct{}   // the commit after it is on its way
}

// statements carries what the server says, message by message.
func (w *wire) statements(database, server net.Conn) {
	head := make([]byte, 5)
	// the first message has no type
	if _, err := io.ReadFull(server, head[:4]); err != nil {
		return
	}
	if w.pass(database, server, nil, head[:4]) != nil {
		return
	}
	for {
		if _, err := io.ReadFull(server, head); err != nil {
			return
		}
		if w.pass(database, server, head[:1], head[1:]) != nil {
			return
		}
	}
}

// pass carries one message.
func (w *wire) pass(database, server net.Conn, kind, length []byte) error {
	n := binary.BigEndian.Uint32(length)
	if n < 4 || n > 64<<20 {
		return errors.New("no message of PostgreSQL's")
	}
	body := make([]byte, n-4)
	if _, err := io.ReadFull(server, body); err != nil {
		return err
	}
	if len(kind) > 0 {
		w.see(kind[0], body)
	}
	_, err := database.Write(bytes.Join([][]byte{kind, length, body}, nil))
	return err
}

// see looks for the swap and its commit.
func (w *wire) see(kind byte, body []byte) {
	first, rest, _ := bytes.Cut(body, []byte{0})
	switch kind {
	case 'P': // Parse: name, text
		if bytes.HasPrefix(rest, []byte("-- name: VMSwap ")) {
			w.swaps[string(first)] = true
		}
	case 'B': // Bind: portal, statement
		statement, _, _ := bytes.Cut(rest, []byte{0})
		if w.swaps[string(statement)] {
			w.at(atSwap)
			w.swapped = true
		}
	case 'Q':
		if w.swapped && bytes.EqualFold(first, []byte("commit")) {
			w.commits <- struct{}{}
		}
		w.swapped = false
	}
}

// answers carries what the database says.
func (w *wire) answers(server, database net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := database.Read(buf)
		if n > 0 {
			select {
			case <-w.commits:
				w.at(atCommitted)
			default:
			}
			if _, err := server.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
