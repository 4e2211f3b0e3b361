package nodelink

import (
	"encoding/json"
	"strings"
	"unicode"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// codec carries messages as JSON over gRPC.
type codec struct{}

// Marshal implements encoding.Codec.
func (codec) Marshal(v any) ([]byte, error) { return json.Marshal(v) }

// Unmarshal implements encoding.Codec.
func (codec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// Name implements encoding.Codec.
func (codec) Name() string { return "json" }

// frame is every message of the link: a call, or with the same ID its reply.
type frame struct {
	ID     uint64          `json:"id,omitempty"`
	Method string          `json:"method,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	Error  *WireError      `json:"error,omitempty"`
}

// WireError is errs.Error on the wire; causes stay where they happened, in the
// log.
type WireError struct {
	Code     errs.Code `json:"code"`
	Message  string    `json:"message"`
	Job      string    `json:"job,omitempty"`
	Blockers []string  `json:"blockers,omitempty"`
}

// NewWireError converts an error; nil stays nil.
func NewWireError(err error) *WireError {
	if err == nil {
		return nil
	}
	e := errs.As(err)
	return &WireError{Code: e.Code, Message: e.Message, Job: e.Job, Blockers: e.Blockers}
}

// Err converts back; nil stays nil.
func (w *WireError) Err() error {
	if w == nil {
		return nil
	}
	e := errs.New(errs.Code(Text(string(w.Code))), "%s", Text(w.Message))
	e.Job = Text(w.Job)
	for _, b := range w.Blockers[:min(len(w.Blockers), maxBlockers)] {
		e = e.BlockedBy(Text(b))
	}
	return e
}

// Bounds of what a peer may have us show and keep.
const (
	maxText     = 1024
	maxBlockers = 100
)

// Text makes a peer's words fit for a log, a page and the database, which holds
// no NUL: control characters become spaces, and there is an end.
func Text(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// pack makes a reply of a result or an error.
func pack(id uint64, v any, err error) *frame {
	f := &frame{ID: id, Error: NewWireError(err)}
	if err != nil {
		return f
	}
	body, err := json.Marshal(v)
	if err != nil {
		f.Error = NewWireError(errs.New(errs.Internal, "the reply cannot be written").Because(err))
		return f
	}
	f.Body = body
	return f
}

// unpack reads a reply into v.
func (f *frame) unpack(v any) error {
	if err := f.Error.Err(); err != nil {
		return err
	}
	if v == nil || len(f.Body) == 0 {
		return nil
	}
	if err := json.Unmarshal(f.Body, v); err != nil {
		return errs.New(errs.Internal, "the peer's reply is not understood").Because(err)
	}
	return nil
}
