package qmp

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Event is something the hypervisor tells by itself.
type Event struct {
	Name string
	Data json.RawMessage
	// At is the hypervisor's wall time.
	At time.Time
}

// Error is the hypervisor's refusal of a command.
type Error struct {
	Command string
	Class   string
	Desc    string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s: %s (%s)", e.Command, e.Desc, e.Class) }

// message is any line a peer sends.
type message struct {
	Greeting  json.RawMessage `json:"QMP"`
	Return    json.RawMessage `json:"return"`
	Error     *wireError      `json:"error"`
	Event     *string         `json:"event"`
	Data      json.RawMessage `json:"data"`
	ID        *uint64         `json:"id"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

type wireError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

// readLine gives the next line that is not blank, without its end.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, fmt.Errorf("a message of more than %d bytes", limit)
		}
		line = append(line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, errors.New("the connection ended in the middle of a message")
		case err != nil:
			return nil, err
		}
		if trimmed := bytes.TrimSpace(line); len(trimmed) > 0 {
			return trimmed, nil
		}
		line = line[:0]
	}
}

// parse reads one message and checks that it is exactly one of the four kinds.
func parse(line []byte) (*message, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return nil, fmt.Errorf("a message that is not JSON of the protocol (%.40q): %w", line, err)
	}
	kinds := 0
	for _, is := range []bool{m.Greeting != nil, m.Return != nil, m.Error != nil, m.Event != nil} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		return nil, fmt.Errorf("a message of no known kind (%.40q)", line)
	}
	return &m, nil
}

func (m *message) event() Event {
	return Event{
		Name: *m.Event,
		Data: m.Data,
		At:   time.Unix(m.Timestamp.Seconds, m.Timestamp.Microseconds*1000).UTC(),
	}
}
