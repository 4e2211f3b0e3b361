package api

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size in bytes. It is written as an integer; it is read from an
// integer or from text with a binary suffix, such as "2GiB".
type Bytes int64

// binary multiples of a byte (IEC 80000-13).
var suffixes = map[string]int64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50}

// ParseBytes reads "1073741824", "512MiB" or "2 GiB". Decimal suffixes and
// fractions mean different things to different people and are refused.
func ParseBytes(s string) (Bytes, error) {
	t := strings.TrimSpace(s)
	digits := len(t) - len(strings.TrimLeft(t, "0123456789"))
	mult, ok := suffixes[strings.TrimSpace(t[digits:])]
	n, err := strconv.ParseInt(t[:digits], 10, 64)
	if !ok || err != nil || n > math.MaxInt64/mult {
		return 0, fmt.Errorf("%.40q is not a size: write whole bytes or one of KiB, MiB, GiB, TiB, as in 512MiB", s)
	}
	return Bytes(n * mult), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (b *Bytes) UnmarshalJSON(data []byte) error {
	var n int64
	if err := json.Unmarshal(data, &n); err == nil {
		*b = Bytes(n)
		return nil
	}
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("%.40s is not a size: write whole bytes, or text such as \"512MiB\"", data)
	}
	v, err := ParseBytes(s)
	*b = v
	return err
}

// Meta is what every resource document begins with.
type Meta struct {
	Kind     string            `json:"kind"`
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Project  string            `json:"project,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Revision int64             `json:"revision"`
	// CreatedAt and UpdatedAt are for display.
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// List is one page. Next is the cursor of the following page, empty on the last.
type List[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// Error is application/problem+json (RFC 9457).
type Error struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Code is the stable word programs branch on.
	Code string `json:"code"`
	// Errors points at the refused parts of the input.
	Errors []FieldError `json:"errors,omitempty"`
	// RequestID finds this request in the server's log.
	RequestID string `json:"request_id,omitempty"`
	// Retryable: may the same request succeed later?
	Retryable bool `json:"retryable"`
	// Job is the job that stands in the way, if one does.
	Job string `json:"job,omitempty"`
	// Blockers lists what stands in the way.
	Blockers []string `json:"blockers,omitempty"`
}

// FieldError is one refused part of an input.
type FieldError struct {
	Code string `json:"code"`
	// Field is a JSON pointer (RFC 6901) into the body, or a parameter's name.
	Field   string `json:"field"`
	Message string `json:"message"`
	Limit   string `json:"limit,omitempty"`
	Got     string `json:"got,omitempty"`
}

// Error implements error.
func (e *Error) Error() string { return e.Detail }

// Accepted is the answer to a change that takes time. With ?wait the job has
// ended, or the wait has.
type Accepted struct {
	Job Job `json:"job"`
}
