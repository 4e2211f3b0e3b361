package server

import (
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/vocab/clock"
)

// Bounds of clients that do not go on.
const (
	// bodyTimeout is how long a JSON body may take to arrive.
	bodyTimeout = 30 * time.Second
	// uploadTimeout is how long an upload may stand still.
	uploadTimeout = time.Minute
	// writeTimeout is how long a client may take no byte of an answer.
	writeTimeout = 30 * time.Second
	// logTimeout is the same for a log, which people read with a pager.
	logTimeout = 10 * time.Minute
)

// bounded ends the connection of a client that does not read: each write renews
// the time the client has to take it.
type bounded struct {
	http.ResponseWriter
	patience time.Duration
}

func (g *gate) bounded(w http.ResponseWriter, rt Route) *bounded {
	b := &bounded{w, rt.patience}
	if b.patience == 0 {
		b.patience = writeTimeout
	}
	return b
}

// Unwrap lets http.ResponseController through.
func (b *bounded) Unwrap() http.ResponseWriter { return b.ResponseWriter }

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	// not every writer has deadlines: a test's recorder has none and needs none
	_ = http.NewResponseController(b.ResponseWriter).SetWriteDeadline(clock.Deadline(b.patience))
	return b.ResponseWriter.Write(p)
}

// readBy gives the request's body until the time is over.
func readBy(w http.ResponseWriter, at time.Time) {
	_ = http.NewResponseController(w).SetReadDeadline(at) // see Write
}

// steady is a body that must not stand still, and can be ended from outside.
type steady struct {
	r     io.Reader
	w     http.ResponseWriter
	mu    sync.Mutex
	ended bool
}

// Read implements io.Reader.
func (s *steady) Read(p []byte) (int, error) {
	if !s.goOn() {
		return 0, io.ErrUnexpectedEOF
	}
	return s.r.Read(p)
}

func (s *steady) goOn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		readBy(s.w, clock.Deadline(uploadTimeout))
	}
	return !s.ended
}

// end makes a Read that waits, and every later one, fail.
func (s *steady) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	readBy(s.w, clock.Deadline(-time.Second))
}
